"""Noisy evaluation: no client and no row moves the sums by more than the noise is made for, and they tell the metrics."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedcore.config import load_config
from fedcore.data.schema import Schema
from fedcore.local.metrics import measure, summarize
from fedcore.local.shares import BINS, NOISE, added_up, shares_of
from fedcore.privacy.leaves import SHARES
from fedcore.types import Reply

CLIP = 4.0
SCHEMAS = {
    "two classes": Schema("s", "classification", "y", ("0", "1"), shape=(1,)),
    "five classes": Schema("s", "classification", "y", tuple("01234"), shape=(1,)),
    "numbers": Schema("s", "regression", "y", shape=(1,)),
    "survival": Schema("s", "survival", "y", shape=(1,)),
}
ROWS = [name for name in SCHEMAS if name != "survival"]  # its rows see one another
wild = st.floats(width=32)  # infinite and not a number, too


def shared(name, mode, *more):
    unit = "record" if mode == "record" else "client"
    return shares_of(
        load_config(
            overrides=(f"privacy.mode={mode}", f"privacy.unit={unit}", "privacy.evaluation=noised", *more)
        ),
        SCHEMAS[name],
    )


def facts(name, scores, y, own=None):
    task = SCHEMAS[name].task
    with np.errstate(all="ignore"):
        found = measure(scores, y, task, CLIP)
        return found if own is None else found | {"personal": measure(own, y, task, CLIP)}


def draw(data, name, rows):
    """Scores of any kind, and labels that the schema allows."""
    if name == "five classes":
        scores = data.draw(arrays(np.float32, (rows, 5), elements=wild))
        return scores, data.draw(arrays(np.int64, rows, elements=st.integers(0, 4))).astype(np.float32)
    scores = data.draw(arrays(np.float32, rows, elements=wild))
    if name == "two classes":
        return scores, data.draw(arrays(np.int64, rows, elements=st.integers(0, 1))).astype(np.float32)
    values = st.floats(-100, 100, width=32)
    y = data.draw(arrays(np.float32, rows, elements=values.filter(bool) if name == "survival" else values))
    return scores, y


@pytest.mark.parametrize("own", [(), ("personal.algorithm=ditto",)], ids=["one model", "own models"])
@pytest.mark.parametrize("name", SCHEMAS)
@given(data=st.data())
def test_no_client_moves_the_sums_by_more_than_its_bound(name, own, data):
    shares = shared(name, "central", *own)
    scores, y = draw(data, name, data.draw(st.integers(1, 6)))
    part = shares.part(facts(name, scores, y, scores[::-1] if own else None))
    assert np.linalg.norm(part) <= shares.norm * (1 + 1e-12)
    sent = data.draw(st.sampled_from([part, part * 1e9, -part * 1e9]))  # clients are not trusted
    bounded = shares.bounded(Reply("a", {SHARES: sent.tolist()}))
    assert bounded is not None
    assert np.linalg.norm(bounded) <= shares.norm * (1 + 1e-12)


@pytest.mark.parametrize("own", [(), ("personal.algorithm=mr_mtl",)], ids=["one model", "own models"])
@pytest.mark.parametrize("name", ROWS)
@given(data=st.data())
def test_no_row_moves_a_silos_sums_by_more_than_its_bound(name, own, data):
    """Whatever the others are, and whether it is the silo's only one."""
    shares = shared(name, "record", *own)
    rows = data.draw(st.integers(1, 6))
    scores, y = draw(data, name, rows)
    more = scores[::-1] if own else None
    whole = shares.part(facts(name, scores, y, more))
    fewer = shares.part(
        facts(name, scores[1:], y[1:], None if more is None else more[1:]) if rows > 1 else {"rows": 0}
    )
    assert np.linalg.norm(whole - fewer) <= shares.norm * (1 + 1e-9)


@pytest.mark.parametrize("bad", [[], [1.0], [float("nan")] * 3, [float("inf")] * 3, [[0.1, 0.2, 0.3]]])
def test_what_is_no_part_is_not_added(bad):
    shares = shared("five classes", "central")
    total, parts = added_up([Reply("a", {SHARES: bad}), Reply("b", error="lost"), Reply("c")], shares)
    assert parts == 0
    assert not total.any()


def test_the_order_of_replies_changes_nothing(rng):
    shares = shared("five classes", "central")
    replies = [Reply(f"c{i}", {SHARES: rng.uniform(-0.5, 0.5, 3).tolist()}) for i in range(50)]
    np.testing.assert_array_equal(added_up(replies, shares)[0], added_up(replies[::-1], shares)[0])


@pytest.mark.parametrize("mode", ["central", "record"])
@pytest.mark.parametrize("name", ROWS)
def test_without_noise_the_sums_tell_the_metrics(name, mode, rng):
    """By row those of all rows, by client the mean of the clients'; here no loss reaches the limit."""
    shares, task = shared(name, mode), SCHEMAS[name].task
    replies, clear, each = [], [], []
    for number in range(5):
        rows = 20 + number
        if name == "five classes":
            scores, y = rng.dirichlet([3] * 5, rows).astype(np.float32), rng.integers(0, 5, rows)
        elif name == "two classes":
            scores, y = rng.uniform(0.1, 0.9, rows).astype(np.float32), rng.integers(0, 2, rows)
        else:
            scores, y = rng.uniform(0, 1, rows).astype(np.float32), rng.uniform(0, 1, rows)
        found = measure(scores, y.astype(np.float32), task, CLIP)
        replies.append(Reply(f"c{number}", {SHARES: shares.part(found).tolist()}))
        clear.append(Reply(f"c{number}", found))
        each.append(summarize(clear[-1:], task)[0])
    told = shares.metrics(added_up(replies, shares)[0], 0.0)
    pooled = summarize(clear, task)[0]
    for metric in set(told) - {NOISE, "auc"}:
        expected = pooled[metric] if mode == "record" else np.mean([one[metric] for one in each])
        assert told[metric] == pytest.approx(expected, rel=1e-9)
    assert {"loss", "mse", "mae"} <= set(told) if name == "numbers" else {"loss", "accuracy"} <= set(told)
    if (name, mode) == ("two classes", "record"):
        assert told["auc"] == pytest.approx(pooled["auc"], abs=1 / BINS)
    else:
        assert "auc" not in told


@pytest.mark.parametrize("noise", [1.0, 5.0])
def test_parts_that_come_noised_are_added_as_they_are(noise, rng):
    """Local noise: cut to the bound, means would be drawn to a half. False alarms: one in 10^5, 4.4 deviations."""
    shares, clients = shared("five classes", "local"), 20_000
    true = shares.part({"rows": 10, "loss_sum": 2.0, "correct": 9})
    noised = true + noise * shares.norm * rng.standard_normal((clients, shares.size))
    total, parts = added_up((Reply(f"{n}", {SHARES: one.tolist()}) for n, one in enumerate(noised)), shares)
    deviation = noise * shares.norm * sqrt(parts)
    told = shares.metrics(total, deviation)
    assert told["accuracy"] == pytest.approx(0.9, abs=1.3 * 4.4 * told[NOISE])
    assert told["loss"] == pytest.approx(0.2, abs=1.4 * 4.4 * told[NOISE] * CLIP)
    assert told[NOISE] == pytest.approx(deviation / clients, rel=0.2)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("limit", [0.1, 0.5, 4.0])
def test_a_limit_on_losses_is_none_on_scores(name, limit, rng):
    many = rng.dirichlet([1] * 5, 200) if name == "five classes" else rng.uniform(0, 1, 200)
    y = rng.integers(0, 5 if name == "five classes" else 2, 200).astype(np.float32)
    free = measure(many.astype(np.float32), y, SCHEMAS[name].task)
    bound = measure(many.astype(np.float32), y, SCHEMAS[name].task, limit)
    for kept in {"correct", "positive", "negative", "rows"} & set(free):
        assert bound[kept] == free[kept]
    assert bound["loss_sum"] <= min(200 * limit, free["loss_sum"]) * (1 + 1e-12)


def test_means_stay_in_their_ranges_and_a_count_within_its_noise_tells_nothing():
    shares = shared("two classes", "record")
    total = np.zeros(shares.size)
    total[:3] = 10, 1e6, -1e6
    assert shares.metrics(total, 1.0) == {"loss": CLIP, "accuracy": 0.0, NOISE: 1 / 20}
    assert shares.metrics(total, 10 / 3) == {}
    assert shares.metrics(-total, 0.0) == {}


def test_an_area_from_noisy_histograms_is_one():
    shares = shared("two classes", "record")
    total = np.zeros(shares.size)
    total[0] = 100
    total[3 : 3 + BINS], total[3 + BINS :] = np.linspace(-5, 10, BINS), np.linspace(10, -5, BINS)
    assert shares.metrics(total, 1.0)["auc"] == 1.0  # above it before it is put into its range
    total[3:] = -1
    assert "auc" not in shares.metrics(total, 1.0)


def test_the_bound_is_that_of_the_numbers_it_is_made_of():
    assert shared("five classes", "central").norm == sqrt(3) / 2
    assert shared("two classes", "record").norm == sqrt(3 / 4 + 1)
    assert shared("two classes", "record", "personal.algorithm=mr_mtl").norm == sqrt(5 / 4 + 2)
