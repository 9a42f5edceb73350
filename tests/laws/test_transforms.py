"""Bounds hold, clipping is idempotent, noise is what it says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedcore.errors import BadConfig, BadInput
from fedcore.rng import generator
from fedcore.transforms import add_gaussian, chain, clip, identity, system_normal
from fedcore.transforms.clip import norm
from fedcore.transforms.noise import seeded_normal
from fedcore.types import Transform, Vector

finite = st.floats(-(2.0**100), 2.0**100, width=32)
vectors = arrays(np.float32, st.integers(1, 50), elements=finite)
limits = st.floats(1e-3, 1e3)
RNG = np.random.default_rng(0)


def run(transform: Transform, update: Vector) -> Vector:
    return transform.apply(update, transform.init(), RNG)[0]


@given(vectors, limits)
def test_a_clipped_norm_never_exceeds_the_limit(update, limit):
    assert norm(run(clip(limit), update)) <= limit


@given(vectors, limits)
def test_clipping_twice_is_clipping_once(update, limit):
    once = run(clip(limit), update)
    np.testing.assert_array_equal(run(clip(limit), once), once)


@given(vectors, limits)
def test_short_updates_and_inputs_are_left_alone(update, limit):
    before = update.copy()
    clipped = run(clip(limit), update)
    np.testing.assert_array_equal(update, before)
    if norm(update) <= limit:
        np.testing.assert_array_equal(clipped, update)


@given(limits, limits, st.floats(0, 1e6))
def test_a_chain_bounds_as_its_parts_do(first, second, incoming):
    both = chain(clip(first), identity, clip(second))
    assert both.bound(incoming) == min(incoming, first, second)
    update = np.full(3, incoming, np.float32)
    assert norm(run(both, update)) <= both.bound(float("inf"))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_update_that_is_not_finite_has_no_norm_to_clip(bad):
    with pytest.raises(BadInput, match="not finite"):
        run(clip(1.0), np.array([1, bad], np.float32))


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_limits_and_deviations_that_mean_nothing_are_refused(bad):
    with pytest.raises(BadConfig, match=r"privacy\.clip"):
        clip(bad)
    with pytest.raises(BadConfig, match="noise_multiplier"):
        add_gaussian(np.zeros(3), bad, system_normal)


@pytest.mark.parametrize("normal", [system_normal, seeded_normal(generator(1, "noise"))])
def test_noise_has_the_moments_it_claims(normal):
    """False alarms: about 1 in 10,000 runs for each bound (four standard errors)."""
    n = 200_000
    draws = add_gaussian(np.zeros(n), 3.0, normal) / 3.0
    assert abs(draws.mean()) < 4 / np.sqrt(n)
    assert abs(draws.var() - 1) < 4 * np.sqrt(2 / n)
    assert abs((draws**4).mean() - 3) < 4 * np.sqrt(96 / n)
    assert abs(np.corrcoef(draws[: n // 2], draws[n // 2 :])[0, 1]) < 4 / np.sqrt(n // 2)


def test_the_system_source_never_repeats_and_gives_odd_sizes():
    first, second = system_normal(7), system_normal(7)
    assert len(first) == 7
    assert not np.intersect1d(first, second).size
