"""The mean is the float32 nearest to the exact rational mean, in any order, streamed or not."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedcore.errors import BadInput, TooFewClients
from fedcore.rules import RULES, streaming_mean
from fedcore.rules import numba as kernels
from fedcore.rules.exact import PIECE, ExactSum
from fedcore.rules.mean import Terms, certified_mean
from fedcore.rules.numba import as_rows
from fedcore.rules.numba import certified_mean as compiled_mean

mean = RULES["mean"]
floats = st.floats(-(2.0**100), 2.0**100, width=32)
ties = st.sampled_from(
    [0.0, -0.0, 1.0, -1.0, 1 + 2.0**-23, 1 + 2.0**-22, 2.0**24, -(2.0**24), 3.0, 2.0**-149]
)
matrices = st.tuples(st.integers(1, 9), st.integers(1, 5)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.one_of(floats, ties))
)


def nearest(value: Fraction) -> np.float32:
    """The float32 nearest to a rational, ties to even: by looking at the neighbours of a guess."""
    guess = np.float32(float(value))
    around = [np.nextafter(guess, np.float32(-np.inf)), guess, np.nextafter(guess, np.float32(np.inf))]
    finite = [x for x in around if np.isfinite(x)]
    distance = {float(x): abs(Fraction(float(x)) - value) for x in finite}
    best = [x for x in finite if distance[float(x)] == min(distance.values())]
    even = [x for x in best if x.view(np.uint32) % 2 == 0]
    return (even if len(best) > 1 else best)[0] + np.float32(0)


def reference(updates, weights) -> np.ndarray:
    total = sum(Fraction(float(w)) for w in weights)
    sums = [
        sum(Fraction(float(x)) * Fraction(float(w)) for x, w in zip(column, weights, strict=True))
        for column in updates.T
    ]
    return np.array([nearest(value / total) for value in sums], np.float32)


@given(matrices, st.data())
@settings(max_examples=150, deadline=None)
def test_the_mean_is_the_exact_mean_rounded_once(updates, data):
    kinds = st.sampled_from(["equal", "counts", "any"])
    kind = data.draw(kinds)
    one = {"equal": st.just(0.3), "counts": st.integers(1, 5000).map(float), "any": st.floats(1e-3, 1e3)}[
        kind
    ]
    weights = np.array(data.draw(st.lists(one, min_size=len(updates), max_size=len(updates))))
    expected = reference(updates, weights)
    assert mean(updates, weights).tobytes() == expected.tobytes()
    order = data.draw(st.permutations(range(len(updates))))
    streamed = streaming_mean((updates[i], float(weights[i])) for i in order)
    assert streamed.tobytes() == expected.tobytes()


def test_a_thousand_clients_from_1e_minus_8_to_1e8_are_summed_exactly():
    """The bound asked for is 1e-12 of Σ|w·x| and one rounding; there is no error but the rounding."""
    rng = np.random.default_rng(3)
    updates = (10.0 ** rng.uniform(-8, 8, (1000, 40)) * rng.choice([-1, 1], (1000, 40))).astype(np.float32)
    weights = rng.integers(1, 10_000, 1000).astype(float)
    expected = reference(updates, weights)
    assert mean(updates, weights).tobytes() == expected.tobytes()
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(1000)
        assert mean(updates[order], weights[order]).tobytes() == expected.tobytes()
        assert streaming_mean((updates[i], weights[i]) for i in order).tobytes() == expected.tobytes()


def test_plain_float32_accumulation_drifts_over_a_thousand_rounds_and_ours_does_not():
    """One model takes 1,000 mean updates of 100 clients, by float32 sums and by ours; exact is the third."""
    rng = np.random.default_rng(5)
    updates = rng.normal(1e-3, 1.0, (100, 50)).astype(np.float32)
    weights = rng.integers(50, 500, 100).astype(float)
    shares = (weights / weights.sum()).astype(np.float32)
    drifting = np.zeros(50, np.float32)
    ours = np.zeros(50)
    exact = [Fraction(0)] * 50
    columns = [[Fraction(float(x)) for x in column] for column in updates.T]
    parts = [Fraction(w) / Fraction(weights.sum()) for w in weights]
    step = [sum(x * p for x, p in zip(column, parts, strict=True)) for column in columns]
    for _ in range(1000):
        summed = np.zeros(50, np.float32)
        for row, share in zip(updates, shares, strict=True):
            summed += share * row
        drifting += summed
        ours += mean(updates, weights)
        exact = [a + b for a, b in zip(exact, step, strict=True)]
    true = np.array([float(x) for x in exact])
    scale = np.abs(true)
    assert np.max(np.abs(ours - true) / scale) < 2.0**-23
    assert np.max(np.abs(drifting - true) / scale) > 20 * np.max(np.abs(ours - true) / scale)


@pytest.mark.parametrize("span", [1, 7])
def test_the_kernel_and_its_twin_certify_alike(span):
    rng = np.random.default_rng(span)
    updates = rng.normal(size=(span * 5, 3000)).astype(np.float32)
    updates[:, 5] = 0
    updates[0, 7] = np.nan
    weights = rng.uniform(1, 2, len(updates))
    used = np.arange(len(updates))
    beside = rng.normal(size=(2, 3000)).astype(np.float32)
    terms = Terms(updates[:, 10:2990], used, weights, beside[:, 10:2990], np.array([0.5, 1.5]))
    total = float(weights.sum() + 2)
    with np.errstate(invalid="ignore"):
        for function in (compiled_mean, compiled_mean.py_func):
            as_read = terms._replace(matrix=as_rows(terms.matrix), beside=as_rows(terms.beside))
            found = np.empty(2980, np.float32)
            open_ = function(as_read, total, False, found)
            twin, twin_open = certified_mean(terms, total)
            sure = np.setdiff1d(np.arange(2980), np.union1d(open_, twin_open))
            assert found[sure].tobytes() == twin[sure].tobytes()
            assert len(sure) > 2900


@pytest.mark.parametrize("interpreted", [False, True])
def test_the_kernel_settles_ties_and_leaves_open_what_two_numbers_cannot_hold(interpreted, monkeypatch):
    if interpreted:
        for name in ("weighed", "add_products", "add_twice", "settled", "settle", "certified_mean"):
            monkeypatch.setattr(kernels, name, getattr(kernels, name).py_func)
    tie, above = 1 + 2.0**-24, 2.0**-80
    columns = {
        "a tie goes to the even": ([2.0, 2 * tie - 2], 1.0),
        "a tie goes up to the even": ([2 + 2.0**-22, 2.0**-23], 1 + 2.0**-22),
        "just above": ([2.0, 2.0**-23, above], 1 + 2.0**-23),
        "just below": ([2.0, 2.0**-23, -above], 1.0),
        "minus": ([-2.0, -(2.0**-23), -above], -1 - 2.0**-23),
        "nothing left": ([1e30, 1.0, -1e30, -1.0], 0.0),
        "too small for two numbers": ([2.0, 2.0**-23, above, 2.0**-140], None),
        "not finite": ([2.0, np.nan], None),
        "infinite": ([2.0, np.inf], None),
    }
    updates = np.zeros((4, len(columns)), np.float32)
    for i, (values, _) in enumerate(columns.values()):
        updates[: len(values), i] = values
    found = np.empty(len(columns), np.float32)
    terms = Terms(as_rows(updates), np.arange(4), np.ones(4), as_rows(updates[:0]), np.empty(0))
    with np.errstate(invalid="ignore", over="ignore"):
        open_ = kernels.certified_mean(terms, 2.0, True, found)
    known = {i: mean for i, (_, mean) in enumerate(columns.values()) if mean is not None}
    assert open_.tolist() == [i for i in range(len(columns)) if i not in known]
    assert found[list(known)].tolist() == list(known.values())


def test_a_long_stream_carries_and_stays_exact():
    total = ExactSum(2)
    row = np.array([1 + 2.0**-23, -(2.0**-40)], np.float32)
    for _ in range(3):
        total.add(np.broadcast_to(row, (2**19, 2)), 1.0)
    assert PIECE == 32
    assert total.mean(3 * 2**19).tobytes() == row.tobytes()


def test_what_cannot_be_summed_is_refused():
    with pytest.raises(TooFewClients, match="the mean needs at least 1 client"):
        streaming_mean([])
    with pytest.raises(BadInput, match="must have 2 parameters, got 3"):
        streaming_mean([(np.ones(2, np.float32), 1.0), (np.ones(3, np.float32), 1.0)])
    with pytest.raises(BadInput, match="finite"):
        streaming_mean([(np.array([np.nan], np.float32), 1.0)])
    with pytest.raises(BadInput, match="between 1e-90 and 1e90"):
        streaming_mean([(np.ones(2, np.float32), 1e-200)])
    with pytest.raises(BadInput, match="positive finite"):
        streaming_mean([(np.ones(2, np.float32), 0.0)])


def test_the_exact_tie_of_a_wide_total_goes_to_even():
    updates = np.array([[1.0], [1 + 2.0**-23]], np.float32)
    for weight in (0.1, 1e30, 2.0**60 + 2**10):
        total = ExactSum(1)
        total.add(updates, weight)
        assert total.mean(Fraction(weight) * 2) == np.float32(1.0)
