"""Accountants against reference values, closed forms, brute force and each other."""

import math
import time

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.privacy.accountant import Account, spent
from fedcore.privacy.events import (
    Covered,
    DiscreteGaussianSum,
    FixedSizeSum,
    GaussianSum,
    LaplaceSum,
    LocalRelease,
    MatrixSums,
    RecordSgd,
    SkellamSum,
)
from fedcore.privacy.losses import Losses, _power, epsilon_at
from fedcore.privacy.pld import gaussian_epsilon
from fedcore.privacy.rdp import skellam_divergence
from fedcore.privacy.releases import Skellam, distance_from_gaussian

# rate, noise multiplier, rounds, delta, RDP, PLD: measured with dp-accounting 0.6.0 at its finest
GRID = [
    (0.01, 1.0, 1, 1e-5, 0.9555, 0.1995),
    (0.01, 0.8, 1000, 1e-5, 3.6956, 3.1410),
    (0.01, 1.1, 10000, 1e-5, 5.6320, 5.1926),
    (0.001, 0.6, 10000, 1e-6, 3.9992, 3.1522),
    (0.004, 1.0, 4000, 1e-5, 1.5482, 1.3455),
    (0.03, 0.7, 2000, 1e-6, 24.344, 22.441),
    (0.1, 1.0, 100, 1e-5, 7.9039, 7.0466),
    (0.1, 13.0, 1000, 1e-5, 0.9888, 0.9040),
    (0.25, 8.0, 100, 1e-3, 0.9093, 0.7840),
    (0.5, 5.0, 100, 1e-5, 4.8664, 4.4878),
    (None, 1.0, 1, 1e-5, 4.7285, 4.37718),
    (None, 100.0, 1000, 1e-5, 1.3085, 1.19937),
]


def gaussian_delta(multiplier: float, epsilon: float) -> float:
    """δ of the Gaussian mechanism. Balle & Wang 2018, theorem 8, written down once more."""

    def below(x: float) -> float:
        return 0.5 * math.erfc(-x / math.sqrt(2))

    half, far = 1 / (2 * multiplier), epsilon * multiplier
    return below(half - far) - math.exp(epsilon) * below(-half - far)


@pytest.mark.parametrize(("rate", "noise", "rounds", "delta", "rdp", "pld"), GRID)
def test_both_accountants_give_the_reference_values(rate, noise, rounds, delta, rdp, pld):
    found = Account().plus(GaussianSum(noise, rate), rounds).spent(delta)
    assert found.pld == pytest.approx(pld, rel=5e-3)
    assert found.rdp == pytest.approx(rdp, rel=5e-3)
    assert found.epsilon == found.pld


@given(st.floats(0.3, 200), st.integers(1, 5000), st.sampled_from([1e-3, 1e-5, 1e-8]))
@settings(max_examples=40, deadline=None)
def test_without_sampling_epsilon_is_the_closed_form(noise, rounds, delta):
    epsilon = Account().plus(GaussianSum(noise, None), rounds).epsilon(delta)
    together = noise / math.sqrt(rounds)
    if epsilon == 0:
        assert gaussian_delta(together, 0) <= delta
    elif epsilon < 600:
        assert gaussian_delta(together, epsilon) == pytest.approx(delta, rel=1e-5)


def test_the_closed_form_is_met_to_a_millionth():
    assert Account().plus(GaussianSum(1.0, None)).epsilon(1e-5) == pytest.approx(4.377178, abs=1e-6)
    assert Account().plus(GaussianSum(1.0, 1.0)).epsilon(1e-5) == pytest.approx(4.377178, abs=1e-6)


@pytest.mark.parametrize("release", [GaussianSum(2.0, 0.1), LaplaceSum(5.0, 0.2), LaplaceSum(9.0, None)])
def test_composition_equals_that_of_the_library(release):
    accountant = PLDAccountant(value_discretization_interval=1e-3)
    noise = dp_accounting.LaplaceDpEvent if isinstance(release, LaplaceSum) else dp_accounting.GaussianDpEvent
    event = noise(release.noise_multiplier)
    if release.sampling_rate:
        event = dp_accounting.PoissonSampledDpEvent(release.sampling_rate, event)
    accountant.compose(event, 60)
    found = Account().plus(release, 60).epsilon(1e-5)
    assert found == pytest.approx(accountant.get_epsilon(1e-5), rel=2e-3)


def test_composition_of_several_kinds_equals_that_of_the_library():
    accountant = PLDAccountant(value_discretization_interval=1e-3)
    accountant.compose(dp_accounting.PoissonSampledDpEvent(0.1, dp_accounting.GaussianDpEvent(1.5)), 40)
    accountant.compose(dp_accounting.LaplaceDpEvent(20.0), 10)
    accountant.compose(dp_accounting.GaussianDpEvent(8.0), 5)
    account = Account().plus(GaussianSum(1.5, 0.1), 40).plus(LaplaceSum(20.0, None), 10)
    account = account.plus(GaussianSum(8.0, None), 3).plus(GaussianSum(8.0, 1.0), 2)
    assert account.epsilon(1e-5) == pytest.approx(accountant.get_epsilon(1e-5), rel=2e-3)


def test_a_loss_that_may_be_infinite_bounds_delta():
    two = Losses(0.5, -1, np.array([0.3, 0.0, 0.0, 0.6]), 0.1)  # losses -0.5 and 1.0, infinite with 0.1
    assert epsilon_at(two, 0.05) == math.inf
    assert epsilon_at(two, 0.9) == 0
    epsilon = epsilon_at(two, 0.2)
    assert 0.1 + 0.6 * (1 - math.exp(epsilon - 1)) == pytest.approx(0.2)


@given(st.sampled_from([0.02, 0.3, None]), st.floats(0.8, 20), st.integers(1, 400))
@settings(max_examples=12, deadline=None)
def test_more_rounds_cost_more_and_more_noise_costs_less(rate, noise, rounds):
    once = Account().plus(GaussianSum(noise, rate), rounds).spent(1e-5)
    longer = Account().plus(GaussianSum(noise, rate), 2 * rounds).spent(1e-5)
    louder = Account().plus(GaussianSum(1.1 * noise, rate), rounds).spent(1e-5)
    assert louder.pld < once.pld < longer.pld
    assert louder.rdp <= once.rdp <= longer.rdp
    assert once.pld <= once.rdp * (1 + 2e-3)


def test_epsilon_does_not_depend_on_what_was_asked_before():
    event = GaussianSum(3.0, 0.1)
    by_steps = [Account().plus(event, n).epsilon(1e-5) for n in range(1, 30)]
    from fedcore.privacy import pld

    pld._repeated.cache_clear()
    pld._single.cache_clear()
    assert [Account({event: n}).epsilon(1e-5) for n in range(29, 0, -1)] == by_steps[::-1]


def test_a_fixed_size_cohort_costs_what_replacing_one_costs():
    found = Account().plus(FixedSizeSum(2.0, 100, 10_000), 1000).spent(1e-5)
    assert found.pld is None
    assert found.epsilon == found.rdp == pytest.approx(3.58, rel=5e-3)
    whole = Account().plus(FixedSizeSum(40.0, 50, 50), 10).epsilon(1e-5)
    assert whole == pytest.approx(gaussian_epsilon(20 / math.sqrt(10), 1e-5), rel=1e-9)


def test_correlated_sums_are_one_gaussian_and_what_they_cover_is_free():
    one = spent([MatrixSums(6.0, 2.0, 100), *[Covered(0)] * 99], 1e-5)
    assert one.pld == pytest.approx(gaussian_epsilon(3.0, 1e-5), rel=1e-9)
    assert spent([Covered(0)], 1e-5).epsilon == 0


def test_local_noise_counts_half_because_a_whole_update_is_replaced():
    assert spent([LocalRelease(4.0)], 1e-5).pld == pytest.approx(gaussian_epsilon(2.0, 1e-5), rel=1e-9)
    laplace = spent([LocalRelease(4.0, "laplace")], 1e-5)
    assert laplace.pld == pytest.approx(0.5, rel=1e-2)


def test_steps_of_a_silo_are_releases_of_records():
    steps = spent([RecordSgd(1.0, 0.01, 500)] * 2, 1e-5)
    assert steps == Account().plus(GaussianSum(1.0, 0.01), 1000).spent(1e-5)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("rate", [None, 0.3])
def test_laplace_on_one_coordinate_dominates_any_split_of_the_same_distance(share, rate):
    """Brute force for the proof in `pld_epsilon`: two coordinates moved by a and b, against one by a + b."""
    from dp_accounting.pld import privacy_loss_distribution as distributions

    def one(distance):
        return distributions.from_laplace_mechanism(1 / distance, value_discretization_interval=1e-3)

    distance = 1.5
    split = one(share * distance).compose(one((1 - share) * distance))
    for epsilon in np.linspace(0, distance, 30):
        assert split.get_delta_for_epsilon(epsilon) <= one(distance).get_delta_for_epsilon(epsilon) + 1e-6
    assert spent([LaplaceSum(1 / distance, rate)], 1e-5).pld <= distance * (1 + 1e-3)


def test_sampled_laplace_noise_has_loss_distributions_only():
    assert spent([LaplaceSum(2.0, 0.1)] * 10, 1e-5).rdp is None
    plain = spent([LaplaceSum(2.0, None)], 1e-9)
    assert plain.pld <= 0.5 * (1 + 5e-3)
    assert plain.rdp <= 0.5 * 1.05  # divergences of finite orders do not quite reach it


@pytest.mark.parametrize("variance", [2.0, 30.0])
@pytest.mark.parametrize("order", [2, 3, 8, 20])
def test_the_skellam_bound_lies_above_the_divergence_itself(variance, order):
    """Brute force on the integers: Skellam probabilities are of a difference of two Poisson numbers."""
    counts = np.arange(400)
    logs = counts * math.log(variance / 2) - variance / 2 - np.array([math.lgamma(k + 1) for k in counts])
    poisson = np.exp(logs)
    noise = np.convolve(poisson, poisson[::-1])[300:-300]
    here, moved = noise[1:], noise[:-1]
    kept = (here > 1e-250) & (moved > 1e-250)
    terms = order * np.log(here[kept]) + (1 - order) * np.log(moved[kept])
    divergence = np.logaddexp.reduce(terms) / (order - 1)
    bound = skellam_divergence(Skellam(variance, 1, 1), order)
    assert divergence <= bound * (1 + 1e-9)
    assert bound <= (2 if variance > 10 else 4) * divergence


def test_skellam_noise_nears_gaussian_noise_of_its_variance():
    found = spent([SkellamSum(1e8, 1e4, 1e3)] * 10, 1e-5)
    gaussian = spent([GaussianSum(10.0, None)] * 10, 1e-5)
    assert found.pld is None
    assert gaussian.rdp <= found.epsilon <= gaussian.rdp * 1.01


@pytest.mark.parametrize("steps", [0.8, 2.0, 9.0])
def test_the_distance_of_discrete_noise_is_bounded(steps):
    """Brute force: both distributions summed over the integers."""
    numbers = np.arange(-200, 201)
    edges = np.array([0.5 * math.erfc(-(n - 0.5) / (steps * math.sqrt(2))) for n in range(-200, 202)])
    rounded = np.diff(edges)
    discrete = np.exp(-(numbers**2) / (2 * steps**2))
    discrete /= discrete.sum()
    apart = np.abs(rounded - discrete).sum() / 2
    assert apart <= distance_from_gaussian(steps) <= 8 * apart


def test_discrete_noise_costs_what_gaussian_noise_costs_and_its_distance():
    fine = DiscreteGaussianSum(2.0, 0.05, steps=2.0**32, dimension=10_000)
    assert spent([fine] * 50, 1e-5).pld == pytest.approx(
        spent([GaussianSum(2.0, 0.05)] * 50, 1e-5).pld, rel=1e-6
    )
    coarse = DiscreteGaussianSum(2.0, 0.05, steps=2.0**20, dimension=10_000)
    dearer = spent([coarse] * 50, 1e-5)
    assert spent([fine] * 50, 1e-5).pld < dearer.pld < 1.05 * spent([fine] * 50, 1e-5).pld
    unsampled = DiscreteGaussianSum(2.0, None, steps=30.0, dimension=10_000)
    assert spent([unsampled], 1e-5) == (type(dearer))(None, spent([GaussianSum(2.0, None)], 1e-5).rdp)


@pytest.mark.parametrize("times", [1, 2, 3, 7, 1000, 10_001])
def test_a_power_by_squaring_is_the_power(rng, times):
    base = (np.exp(1j * rng.uniform(-3, 3, 500)) * rng.uniform(0.99, 1, 500)).astype(np.complex128)
    exact = np.ones(500, np.clongdouble)
    for _ in range(times):
        exact *= base
    assert np.abs(_power(base, times) - exact).max() < 1e-15 * times + 1e-15


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "rate", "rounds"), [(5.99, 0.05, 1000), (0.6, 0.001, 10_000)])
def test_one_query_after_a_thousand_rounds_is_quick(noise, rate, rounds):
    """Under 2 s cold and 50 ms for one round more: the median of the rounds, as the machine is shared."""
    event = GaussianSum(noise, rate)
    start = time.perf_counter()
    account = Account().plus(event, rounds)
    account.epsilon(1e-5)
    assert time.perf_counter() - start < 2
    taken = []
    for _ in range(15):
        start = time.perf_counter()
        account = account.plus(event)
        account.epsilon(1e-5)
        taken.append(time.perf_counter() - start)
    assert np.median(taken) < 0.05
