"""The noise that keeps an ε: enough, and hardly more than enough."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.errors import BadInput, PlanRefused
from fedcore.privacy.accountant import Account
from fedcore.privacy.calibrate import calibrate
from fedcore.privacy.events import DiscreteGaussianSum, Event, GaussianSum, LaplaceSum
from fedcore.privacy.planning import least_clients, noise_ratio, refuse_hopeless


def plain(multiplier: float) -> Event:
    return GaussianSum(multiplier, None)


@given(st.floats(0.05, 50), st.integers(1, 2000))
@settings(max_examples=25, deadline=None)
def test_the_answer_keeps_epsilon_and_a_little_less_would_not(epsilon, rounds):
    noise = calibrate(plain, rounds, 1e-5, epsilon)
    assert Account().plus(plain(noise), rounds).epsilon(1e-5) <= epsilon
    assert Account().plus(plain(noise * (1 - 2e-4)), rounds).epsilon(1e-5) > epsilon


@pytest.mark.parametrize(
    ("event", "noise"),
    [(lambda z: GaussianSum(z, 0.01), 1.415), (lambda z: LaplaceSum(z, None), 10 * 100 / 10)],
)
def test_sampled_and_pure_noise_are_found_too(event, noise):
    rounds = 1000 if isinstance(event(1.0), GaussianSum) else 10
    found = calibrate(event, rounds, 1e-5, 1.0)
    assert Account().plus(event(found), rounds).epsilon(1e-5) <= 1
    assert found <= noise * 1.01


@pytest.mark.parametrize("epsilon", [0, -1, float("nan"), float("inf")])
def test_an_epsilon_that_means_nothing_is_refused(epsilon):
    with pytest.raises(BadInput, match="epsilon must be above 0"):
        calibrate(plain, 10, 1e-5, epsilon)


def test_what_no_noise_keeps_is_refused():
    with pytest.raises(BadInput, match="no noise keeps"):
        calibrate(lambda z: GaussianSum(1.0, None), 10, 1e-5, 0.5)
    with pytest.raises(PlanRefused, match="make the grid finer"):
        calibrate(lambda z: DiscreteGaussianSum(z, 0.1, 3.0, 1000), 10, 1e-5, 0.5)


def test_refusal_of_the_hopeless_names_a_population_that_is_not_refused():
    refuse_hopeless(10_000, 0.05, 6.0, 650, 5.0)
    with pytest.raises(PlanRefused, match="have at least 902 clients"):
        refuse_hopeless(16, 1.0, 118.0, 1460, 5.0)
    refuse_hopeless(902, 1.0, 118.0, 1460, 5.0)
    assert noise_ratio(least_clients(0.1, 3.0, 999, 2.0), 0.1, 3.0, 999) <= 2
