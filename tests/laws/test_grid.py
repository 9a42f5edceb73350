"""The L1 clip and the grid: norms stay below their bounds, sums are exact, Laplace noise is what it says."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedcore.errors import BadConfig, BadInput
from fedcore.rng import generator
from fedcore.transforms import clip
from fedcore.transforms.discrete import exact_sum, from_grid, to_grid
from fedcore.transforms.laplace import add_laplace, clip_l1, norm_l1, seeded_laplace, system_laplace

finite = st.floats(-(2.0**100), 2.0**100, width=32)
vectors = arrays(np.float32, st.integers(1, 50), elements=finite)
limits = st.floats(1e-3, 1e3)
fineness = st.integers(0, 24)
RNG = np.random.default_rng(0)


def run(transform, update):
    return transform.apply(update, transform.init(), RNG)[0]


def squared(steps, step):
    return sum(int(x) ** 2 for x in steps) * Fraction(step) ** 2


@given(vectors, limits)
def test_a_clipped_l1_norm_never_exceeds_the_limit(update, limit):
    before = update.copy()
    once = run(clip_l1(limit), update)
    assert norm_l1(once) <= limit
    assert sum(map(Fraction, np.abs(once).tolist())) <= Fraction(limit) * (1 + Fraction(1, 2**52))
    np.testing.assert_array_equal(run(clip_l1(limit), once), once)
    np.testing.assert_array_equal(update, before)
    if norm_l1(update) <= limit:
        np.testing.assert_array_equal(once, update)
    assert np.linalg.norm(once.astype(float)) <= clip_l1(limit).bound(np.inf) * (1 + 1e-12)


def test_an_l1_clip_keeps_the_direction_and_leaves_zero_alone():
    clipped = run(clip_l1(1.0), np.array([3, -1, 0], np.float32))
    np.testing.assert_allclose(clipped, [0.75, -0.25, 0], rtol=1e-6)
    assert not run(clip_l1(1.0), np.zeros(3, np.float32)).any()
    assert clip_l1(2.0).bound(1.5) == 1.5


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_neither_clipped_nor_put_on_a_grid(bad):
    update = np.array([1, bad], np.float32)
    with pytest.raises(BadInput, match="not finite"):
        run(clip_l1(1.0), update)
    with pytest.raises(BadInput, match="clip it first"):
        to_grid(update, 2**-10, 1.0)


@given(vectors, limits, fineness)
def test_on_the_grid_no_norm_exceeds_its_bound(update, limit, k):
    step = limit * 2.0**-k
    steps, bound = to_grid(run(clip(limit), update), step, limit)
    assert squared(steps, step) <= Fraction(bound) ** 2
    assert bound == pytest.approx(limit + step * np.sqrt(update.size) / 2)


@given(vectors, limits, fineness)
def test_toward_zero_neither_norm_grows(update, limit, k):
    step, slack = limit * 2.0**-k, 1 + Fraction(1, 2**50)
    steps, bound = to_grid(run(clip(limit), update), step, limit, toward_zero=True)
    assert squared(steps, step) <= Fraction(bound) ** 2
    assert bound == pytest.approx(limit, rel=1e-14)
    short = run(clip_l1(limit), update)
    steps, _ = to_grid(short, step, limit, toward_zero=True)
    assert sum(abs(int(x)) for x in steps) * Fraction(step) <= Fraction(limit) * slack


@given(vectors, fineness)
def test_the_way_to_the_grid_and_back_loses_half_a_step(update, k):
    clipped, step = run(clip(1.0), update), 2.0**-k
    for toward_zero, lost in ((False, step / 2), (True, step)):
        steps, _ = to_grid(clipped, step, 1.0, toward_zero=toward_zero)
        assert np.abs(from_grid(steps, step) - clipped).max() <= lost


@given(st.lists(arrays(np.int64, 3, elements=st.integers(-(2**59), 2**59)), min_size=1, max_size=6))
def test_sums_on_the_grid_are_exact_in_any_order(rows):
    assume(sum(int(np.abs(row).max()) for row in rows) < 2**62)
    expected = [sum(int(row[i]) for row in rows) for i in range(3)]
    assert exact_sum(rows).tolist() == expected
    assert exact_sum(rows[::-1]).tolist() == expected


@pytest.mark.parametrize("row", [[2**61, 0], [-(2**61), 0], [0, -(2**63)]])
def test_a_sum_that_could_leave_64_bits_is_refused(row):
    with pytest.raises(BadInput, match="may leave 64-bit integers"):
        exact_sum([np.array(row, np.int64)] * 2)


@pytest.mark.parametrize(("step", "limit"), [(0.0, 1.0), (-1.0, 1.0), (np.nan, 1.0), (2.0**-41, 1.0)])
def test_a_grid_that_means_nothing_or_is_too_fine_is_refused(step, limit):
    with pytest.raises(BadInput, match="grid's step"):
        to_grid(np.zeros(3, np.float32), step, limit)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_limits_and_scales_that_mean_nothing_are_refused(bad):
    with pytest.raises(BadConfig, match=r"privacy\.clip"):
        clip_l1(bad)
    with pytest.raises(BadConfig, match=r"privacy\.clip"):
        to_grid(np.zeros(3, np.float32), 0.1, bad)
    with pytest.raises(BadConfig, match="noise_multiplier"):
        add_laplace(np.zeros(3), bad, system_laplace)


def test_an_update_that_was_not_clipped_does_not_go_on_the_grid():
    with pytest.raises(BadInput, match="norm 5 cannot go on a grid made for 1"):
        to_grid(np.array([3, 4], np.float32), 2**-10, 1.0)


@pytest.mark.parametrize("laplace", [system_laplace, seeded_laplace(generator(1, "laplace"))])
def test_laplace_noise_has_the_moments_it_claims(laplace):
    """False alarms: about 1 in 1.7 million runs for each bound (five standard errors)."""
    n = 200_000
    draws = add_laplace(np.zeros(n), 3.0, laplace) / 3.0
    assert abs(draws.mean()) < 5 * np.sqrt(2 / n)
    assert abs(np.abs(draws).mean() - 1) < 5 / np.sqrt(n)
    assert abs((draws**2).mean() - 2) < 5 * np.sqrt(20 / n)
    assert abs((np.abs(draws) > np.log(4)).mean() - 0.25) < 5 * np.sqrt(3 / 16 / n)
    assert abs(np.corrcoef(draws[: n // 2], draws[n // 2 :])[0, 1]) < 5 / np.sqrt(n // 2)


def test_laplace_noise_repeats_from_a_seed_only():
    assert not np.intersect1d(system_laplace(7), system_laplace(7)).size
    first, second = (seeded_laplace(generator(2))(5) for _ in range(2))
    np.testing.assert_array_equal(first, second)
