"""Sensitivity by brute force: whatever one client sends, the sums move by no more than the plan pays for.

Neighbouring inputs go through the whole chain: client, admission, the server's guard, the sum.
"""

from math import inf, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedcore.config import PrivacyConfig
from fedcore.selection import Turn
from fedcore.state import State
from fedcore.transforms.client import client_chain
from fedcore.transforms.clip import norm
from fedcore.transforms.laplace import norm_l1
from fedcore.types import Reply

SIZE = 4
CLIP = 0.3
PLANS = {
    "gaussian": (),
    "poisson": ("cohort.sampling=poisson", "cohort.rate=0.999999"),
    "fixed": ("cohort.sampling=uniform", "cohort.size=4"),
    "adaptive": ("privacy.clipping=adaptive", "privacy.count_noise=2"),
    "laplace": ("privacy.mechanism=laplace",),
    "discrete": ("privacy.mechanism=discrete_gaussian",),
    "skellam": ("privacy.mechanism=skellam",),
    "tree": ("privacy.mechanism=tree",),
    "banded": ("privacy.mechanism=banded", "privacy.bands=2", "cohort.sampling=cyclic"),
}
SLACK = 1 + 1e-9  # float64 sums of a few numbers

honest = arrays(np.float32, SIZE, elements=st.floats(-10, 10, width=32))
whatever = st.one_of(
    arrays(np.float32, SIZE, elements=st.floats(width=32)),  # huge, NaN and infinite ones too
    arrays(np.float32, SIZE, elements=st.sampled_from([0.0, 3e38, -3e38, 1e-45, CLIP])),
    arrays(np.float64, SIZE, elements=st.floats()),
    arrays(np.int32, st.integers(0, 9)),
    arrays(np.float32, st.integers(0, 9), elements=st.floats(-1, 1, width=32)),
    st.none(),
)
claims = st.sampled_from(
    [{}, {"unclipped": True}, {"unclipped": False}, {"unclipped": 1e9}, {"unclipped": "x"}]
)
answers = st.one_of(
    st.none(),  # lost: the client is not there
    st.builds(lambda facts, vector: Reply("", facts, vector), claims, whatever),
    st.just(Reply("", {}, None, "no rows")),
    st.builds(lambda vector: Reply("", {}, vector, round=7), honest),
)


def sums(private_round, plan, first, others, one, limit=None):
    """The sums of a round in which client `first` answers `one` and the others are honest."""
    sent = {}
    for client, update in zip((c for c in plan.clients if c != first), others, strict=True):
        chain = client_chain(PrivacyConfig(mode="central", clip=CLIP), limit)
        clipped, _ = chain.apply(update, chain.init(), np.random.default_rng(0))
        sent[client] = Reply(client, {"unclipped": norm(update) <= (limit or CLIP)}, clipped)
    if one is not None:
        sent[first] = Reply(first, one.facts, one.vector, one.error, one.round)
    model = np.zeros(SIZE, np.float32)
    state = State("r", 0, model, plan.optimizer.init(model), clip=limit)
    return private_round(plan, sent, state, "combine").arrays("combine")


@pytest.mark.parametrize("name", PLANS)
@settings(max_examples=25)
@given(data=st.data())
def test_no_client_moves_a_sum_by_more_than_the_noise_is_made_for(name, data, private_plan, private_round):
    """One client is added or removed; replaced, it moves the sum by at most twice as much."""
    plan = private_plan(*PLANS[name], f"privacy.clip={CLIP}", "privacy.noise_multiplier=2")
    assert plan.noise is not None
    first = plan.draw(plan.clients, plan.chance("r", 0), Turn(0))[0]
    others = [data.draw(honest) for _ in plan.clients[1:]]
    limit = data.draw(st.sampled_from([None, 1e-3, 0.5, 1e6])) if name == "adaptive" else None
    at = plan.guard.bound(inf) if limit is None else limit
    one, other = data.draw(answers), data.draw(answers)
    with np.errstate(all="ignore"):
        absent, present, replaced = (
            sums(private_round, plan, first, others, answer, limit) for answer in (None, one, other)
        )
    length = norm_l1 if name == "laplace" else norm
    for before, after, often in ((absent, present, 1), (present, replaced, 2)):
        moved = after["sum"] - before["sum"]
        assert length(moved) <= often * at * SLACK
        if name == "adaptive":  # sum and count together cost what the joint multiplier says
            count = float(after["count"][0] - before["count"][0])
            assert abs(count) <= often / 2
            assert plan.adaptive is not None
            deviation = plan.noise.deviation * at / plan.adaptive.start
            shift = sqrt((norm(moved) / deviation) ** 2 + (count / plan.adaptive.deviation) ** 2)
            assert shift <= often / 2.0 * SLACK
        elif name not in ("laplace", "tree", "banded"):
            assert norm(moved) / plan.noise.deviation <= often / 2.0 * SLACK


@pytest.mark.parametrize("name", ["gaussian", "laplace", "discrete", "skellam"])
@given(update=arrays(np.float32, SIZE, elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_the_servers_guard_changes_nothing_twice_and_bounds_what_it_says(name, update, private_plan):
    guard = private_plan(*PLANS[name], f"privacy.clip={CLIP}").guard
    once, _ = guard.apply(update, guard.init(), np.random.default_rng(0))
    twice, _ = guard.apply(once, guard.init(), np.random.default_rng(0))
    np.testing.assert_array_equal(once, twice)
    assert (norm_l1(once) if name == "laplace" else norm(once)) <= guard.bound(inf) == CLIP
    zero, _ = guard.apply(np.zeros(SIZE, np.float32), guard.init(), np.random.default_rng(0))
    assert not zero.any()


@pytest.mark.parametrize("name", [n for n in PLANS if n not in ("tree", "banded")])
def test_the_noise_of_a_round_is_what_the_plan_says_and_new_in_each(name, private_plan, private_round):
    """Through the round itself, with nobody's update in the sum. False alarms: about 1 in 10^5 for each bound.

    4.4 standard errors of mean, variance and correlations; a Laplace number's fourth moment is 6 of
    its variance squared, a normal one's 3.
    """
    size, rounds, many = 4000, 3, 4.4
    plan = private_plan(*PLANS[name], f"privacy.clip={CLIP}", size=size)
    assert plan.noise is not None
    model = np.zeros(size, np.float32)
    state = State("r", 0, model, plan.optimizer.init(model))
    drawn = []
    for number in range(rounds):
        known = private_round(plan, {}, State("r", number, model, state.optimizer), "release", size=size)
        added = known.arrays("release")["model"].astype(np.float64) * plan.noise.expected_cohort
        drawn.append(added / plan.noise.deviation)
    spread = 5 if name == "laplace" else 2
    for noise in drawn:
        assert abs(noise.mean()) < many / sqrt(size)
        assert abs(noise.var() - 1) < many * sqrt(spread / size)
        assert abs(np.corrcoef(noise[:-1], noise[1:])[0, 1]) < many / sqrt(size)
    between = np.corrcoef(drawn)[np.triu_indices(rounds, 1)]
    assert np.abs(between).max() < many / sqrt(size)


def test_an_empty_poisson_cohort_is_released_with_noise_and_charged(private_plan, private_round):
    plan = private_plan("cohort.sampling=poisson", "cohort.rate=1e-9", "privacy.max_noise_ratio=1e12")
    known = private_round(plan, {})
    assert known.facts("select")["cohort"] == []
    assert not known.arrays("combine")["sum"].any()
    assert known.arrays("release")["model"].all()
    assert plan.charge is not None
    assert plan.charge.event(0).sampling_rate == 1e-9
