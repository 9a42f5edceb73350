"""Cox's loss and the concordance index against their definitions, written out pair by pair."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcore.adapters.cox import concordance, partial_likelihood, times
from fedcore.adapters.model import ModelSpec, Training, build_model
from fedcore.errors import BadConfig, PlanRefused
from fedcore.local.metrics import measure, summarize
from fedcore.rng import generator
from fedcore.types import Reply

ROWS = st.lists(
    st.tuples(st.floats(-4, 4, width=32), st.integers(1, 6), st.booleans()), min_size=1, max_size=12
)


def rows(drawn) -> tuple[np.ndarray, np.ndarray]:
    """Risks, and labels: times on a coarse grid, so that ties are common."""
    risk = np.array([r for r, _, _ in drawn], np.float32)
    return risk, np.array([t if seen else -t for _, t, seen in drawn], np.float32)


@given(ROWS)
def test_the_loss_is_each_events_share_among_those_at_risk(drawn):
    risk, y = rows(drawn)
    expected = 0.0
    for r, t, seen in drawn:
        if seen:
            expected -= r - math.log(sum(math.exp(other) for other, at, _ in drawn if at >= t))
    assert partial_likelihood(risk, y)[0] == pytest.approx(expected / len(drawn), abs=1e-9)


@given(ROWS)
def test_the_gradient_is_the_slope_of_the_loss(drawn):
    risk, y = rows(drawn)
    risk = risk.astype(np.float64)
    _, gradient = partial_likelihood(risk, y)
    for i in range(len(risk)):
        step = np.zeros(len(risk))
        step[i] = 1e-5
        slope = (partial_likelihood(risk + step, y)[0] - partial_likelihood(risk - step, y)[0]) / 2e-5
        assert gradient[i] == pytest.approx(slope, abs=1e-6)


@given(ROWS)
def test_risks_count_by_their_differences_alone(drawn):
    risk, y = rows(drawn)
    loss, gradient = partial_likelihood(risk.astype(np.float64), y)
    moved, same = partial_likelihood(risk.astype(np.float64) + 7, y)
    assert moved == pytest.approx(loss, abs=1e-9)
    np.testing.assert_allclose(same, gradient, atol=1e-9)
    assert gradient.sum() == pytest.approx(0, abs=1e-9)


def test_no_risk_is_too_large_for_the_sums():
    risk, y = np.array([4000, -4000, 0], np.float32), np.array([3, 2, 1], np.float32)
    loss, gradient = partial_likelihood(risk, y)
    assert loss == pytest.approx((8000 + 4000) / 3)
    np.testing.assert_allclose(gradient, [2 / 3, -1 / 3, -1 / 3], atol=1e-12)


@given(ROWS)
def test_concordance_counts_the_pairs_whose_order_is_known(drawn):
    risk, y = rows(drawn)
    agree, known = 0.0, 0
    for i, (r, t, seen) in enumerate(drawn):
        for j, (other, at, event) in enumerate(drawn):
            if i != j and seen and (t < at or (t == at and not event)):
                known += 1
                agree += 1.0 if r > other else 0.5 if r == other else 0.0
    assert tuple(concordance(risk, y)) == (agree, known)


def test_a_label_is_a_time_and_whether_the_event_was_seen():
    time, event = times(np.array([5, -3], np.float32))
    assert (time.tolist(), event.tolist()) == ([5, 3], [True, False])


def test_clients_add_up_their_own_pairs_and_one_without_pairs_has_no_index():
    y, risk = np.array([1, 2, -3], np.float32), np.array([3, 1, 2], np.float32)
    alone = Reply("b", measure(np.zeros(1, np.float32), np.array([-4], np.float32), "survival"))
    both, spread = summarize([Reply("a", measure(risk, y, "survival")), alone], "survival")
    assert (both["c_index"], both["rows"]) == (2 / 3, 4)
    assert spread["c_index_p50"] == 2 / 3
    assert set(summarize([alone], "survival")[0]) == {"loss", "rows"}


def spec(framework: str = "numpy") -> ModelSpec:
    return ModelSpec(framework, "linear", (), None, (3,), 1, "survival")


def test_a_model_learns_who_is_at_a_higher_risk():
    rng = generator(1, "survival")
    x = rng.normal(size=(200, 3)).astype(np.float32)
    time = rng.exponential(np.exp(-2 * x[:, 0])) + 1e-3
    y = np.where(rng.random(200) < 0.7, time, -time).astype(np.float32)
    model, start = build_model(spec()), np.zeros(4, np.float32)
    trained, facts = model.train(start, x, y, Training(0.1, 0.9, 0.0, 20, 32), generator(2, "train"))
    pairs = concordance(model.scores(trained, x), y)
    assert pairs.concordant / pairs.comparable > 0.8
    assert facts["loss"] < model.loss_and_gradient(start, x, y)[0]


def test_rows_that_see_one_another_are_refused_their_own_gradients():
    with pytest.raises(PlanRefused, match="compares rows with one another"):
        build_model(spec()).clipped_sum(
            np.zeros(4, np.float32),
            np.zeros((1, 3), np.float32),
            np.ones(1, np.float32),
            1.0,
            generator(1, "x"),
        )


def test_a_framework_that_does_not_learn_it_says_so():
    with pytest.raises(BadConfig, match="survival is learned with numpy"):
        build_model(spec("torch"))
