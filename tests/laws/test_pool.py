"""Moments and metrics of many clients, added one at a time: exact, and the same in every order."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcore.data.pool import Pool, Sums
from fedcore.data.statistics import Moments
from fedcore.local.metrics import measure, summarize
from fedcore.types import Reply

NUMBERS = st.floats(-1e60, 1e60).filter(lambda x: x == 0 or abs(x) > 1e-60)  # whose products do not underflow
SITE = st.tuples(st.integers(0, 10**9), NUMBERS, st.floats(0, 1e60))


def pooled(sites: list[tuple[int, float, float]]) -> Moments:
    pool = Pool(2)
    for rows, mean, m2 in sites:
        pool.add(Moments(rows, 0, (mean, -mean), (m2, m2)))
    return pool.moments()


@given(st.lists(SITE, min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_pooled_moments_are_the_exact_ones_rounded_in_any_order(sites, random):
    found, rows = pooled(sites), max(sum(n for n, _, _ in sites), 1)
    exact = sum((n * Fraction(mean) for n, mean, _ in sites), Fraction(0))
    assert found.mean[0] == float(exact) / rows == -found.mean[1]
    about = Fraction(found.mean[0])
    square = sum((Fraction(m2) + n * (Fraction(mean) - about) ** 2 for n, mean, m2 in sites), Fraction(0))
    # rows whose total is not 0 only: with none, `rows` stands for 1 and nothing deviates from the mean of 0
    deviation = square + (rows - sum(n for n, _, _ in sites)) * about**2
    assert found.m2[0] == found.m2[1] == float(deviation)
    random.shuffle(sites)
    assert pooled(sites) == found


@given(st.lists(st.floats(-1e300, 1e300), max_size=30))
def test_sums_lose_nothing(values):
    sums = Sums(1)
    for value in values:
        sums.add(np.array([value]))
    (parts,) = sums.totals()
    assert sum(map(Fraction, parts), Fraction(0)) == sum(map(Fraction, values), Fraction(0))


def test_what_is_too_large_is_an_error():
    with pytest.raises(OverflowError):
        pooled([(10, 1e200, 0.0)])
    with pytest.raises(OverflowError):
        pooled([(2, 0.0, 1.7e308), (2, 0.0, 1.7e308)])


@pytest.mark.parametrize("losses", [(1e308, 1e308), (math.inf, -math.inf), (math.inf, 1.0), (math.nan, 1.0)])
def test_losses_that_have_no_sum_are_a_loss_that_is_not_finite_and_no_error(losses):
    replies = [Reply(f"c{i}", {"rows": 1, "loss_sum": loss, "correct": 1}) for i, loss in enumerate(losses)]
    metrics, _ = summarize(replies, "classification")
    assert not math.isfinite(metrics["loss"])
    assert metrics["accuracy"] == 1


@given(st.integers(0, 2**32 - 1), st.sampled_from(["binary", "classes", "regression", "survival"]))
def test_metrics_do_not_depend_on_the_order_of_the_clients(seed, kind):
    rng = np.random.default_rng(seed)
    replies = []
    for client in range(rng.integers(2, 9)):
        rows = int(rng.integers(1, 12))
        y = rng.integers(0, 2, rows).astype(np.float32)
        scores = rng.random((rows, 2) if kind == "classes" else rows).astype(np.float32)
        if kind == "survival":
            y = (y * 2 - 1) * rng.uniform(1, 9, rows).astype(np.float32)
        task = "classification" if kind in ("binary", "classes") else kind
        facts = measure(scores, y.astype(np.float32), task)
        replies.append(Reply(f"c{client}", facts | {"personal": dict(facts)}))
    whole = summarize(replies, task)
    assert summarize(iter(replies[::-1]), task) == whole
    loss = math.fsum(reply.facts["loss_sum"] for reply in replies) / whole[0]["rows"]
    assert whole[0]["loss"] == loss == whole[0]["personal_loss"]
