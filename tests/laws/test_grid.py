"""The L1 clip and the grid: norms stay below their bounds, sums are exact, Laplace noise is what it says."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedcore.errors import BadConfig, BadInput
from fedcore.rng import generator
from fedcore.transforms import clip
from fedcore.transforms.discrete import from_grid
from fedcore.transforms.grid import on_grid, whole_steps
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
    with pytest.raises(BadInput, match="not on the grid"):
        whole_steps(run(on_grid(2**-10), update).astype(float), 2**-10)


@given(vectors, limits, fineness)
def test_on_the_grid_no_norm_grows(update, limit, k):
    step = 2.0 ** (int(np.floor(np.log2(limit))) - k)
    for clipped in (run(clip(limit), update), run(clip_l1(limit), update)):
        cut = run(on_grid(step), clipped)
        assert (np.abs(cut) <= np.abs(clipped)).all()
        assert np.abs(cut - clipped).max() < step
        steps = whole_steps(cut.astype(np.float64), step)
        assert squared(steps, step) <= sum(Fraction(x) ** 2 for x in clipped.tolist())
        np.testing.assert_array_equal(from_grid(steps, step), cut)
    assert on_grid(step).bound(limit) == limit


@given(st.lists(arrays(np.int64, 3, elements=st.integers(-(2**49), 2**49)), min_size=1, max_size=6))
def test_sums_on_the_grid_are_exact_in_any_order(rows):
    step = 2.0**-20
    expected = [sum(int(row[i]) for row in rows) for i in range(3)]
    for order in (rows, rows[::-1]):
        total = np.zeros(3)
        for row in order:
            total += from_grid(row, step)
        assert whole_steps(total, step).tolist() == expected


@pytest.mark.parametrize("total", [[2.0**53, 0.0], [0.5, 0.0], [np.nan, 0.0], [0.0, -np.inf]])
def test_a_sum_that_left_the_grid_or_what_is_exact_is_refused(total):
    with pytest.raises(BadInput, match="not on the grid"):
        whole_steps(np.array(total), 1.0)


@pytest.mark.parametrize("step", [0.0, -1.0, np.nan, np.inf, 0.3])
def test_a_grid_that_is_no_power_of_two_is_refused(step):
    with pytest.raises(BadInput, match="power of two"):
        on_grid(step)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_limits_and_scales_that_mean_nothing_are_refused(bad):
    with pytest.raises(BadConfig, match=r"privacy\.clip"):
        clip_l1(bad)
    with pytest.raises(BadConfig, match="noise_multiplier"):
        add_laplace(np.zeros(3), bad, system_laplace)


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
