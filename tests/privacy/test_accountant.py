"""What no accountant proves is refused in a sentence, with the way out."""

import pytest

from fedcore.errors import BadConfig, BadInput, PlanRefused
from fedcore.privacy.accountant import Account, epsilon, spent
from fedcore.privacy.events import (
    DiscreteGaussianSum,
    FixedSizeSum,
    GaussianSum,
    LaplaceSum,
    LocalRelease,
    MatrixSums,
    RecordSgd,
    SkellamSum,
)


@pytest.mark.parametrize("delta", [0, 1, -1e-5, 2])
def test_delta_lies_between_0_and_1(delta):
    with pytest.raises(BadConfig, match="privacy.delta: must lie between 0 and 1"):
        epsilon([GaussianSum(1.0, None)], delta)


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (GaussianSum(0.0, None), "noise 0 protects nobody"),
        (GaussianSum(float("inf"), None), "must be finite"),
        (SkellamSum(0.0, 1, 1), "noise 0 protects nobody"),
        (GaussianSum(1.0, 0.0), r"a sampling rate lies in \(0, 1\], got 0"),
        (LaplaceSum(1.0, 1.5), "got 1.5"),
        (FixedSizeSum(1.0, 11, 10), "11 of 10 clients cannot be drawn"),
        (LocalRelease(1.0, "cauchy"), "local noise of kind 'cauchy'; known: gaussian, laplace"),
        (DiscreteGaussianSum(1.0, None, 0.0, 10), "make the grid finer"),
    ],
)
def test_an_event_that_protects_nobody_is_refused(event, words):
    with pytest.raises(BadInput, match=words):
        epsilon([event], 1e-5)


def test_units_never_mix():
    with pytest.raises(BadInput, match="units client and record.*its own privacy.population"):
        epsilon([GaussianSum(1.0, None), RecordSgd(1.0, 0.1, 10)], 1e-5)


def test_a_release_of_replace_turns_the_account_into_one_of_replace():
    mixed = spent([GaussianSum(4.0, None), LocalRelease(6.0)], 1e-5)
    assert mixed == spent([LocalRelease(4.0), LocalRelease(6.0)], 1e-5)
    assert mixed == spent([MatrixSums(4.0, 1.0, 1), LocalRelease(6.0)], 1e-5)
    assert spent([SkellamSum(1e6, 10, 10), LocalRelease(1e6)], 1e-5).rdp == pytest.approx(
        spent([SkellamSum(1e6, 20, 20)], 1e-5).rdp, rel=1e-4
    )
    assert spent([FixedSizeSum(9.0, 5, 100), LocalRelease(9.0)], 1e-5).pld is None


@pytest.mark.parametrize("sampled", [GaussianSum(1.0, 0.1), LaplaceSum(1.0, 0.1)])
def test_sampling_beside_a_release_of_replace_is_refused(sampled):
    with pytest.raises(
        PlanRefused, match="sampled at rate 0.1.*relation replace.*its own privacy.population"
    ):
        epsilon([sampled, LocalRelease(6.0)], 1e-5)


def test_kinds_that_no_accountant_proves_together_are_refused():
    with pytest.raises(PlanRefused, match="for Laplace, Skellam together"):
        epsilon([LaplaceSum(1.0, 0.1), SkellamSum(100, 1, 1)], 1e-5)


def test_a_grid_too_coarse_for_its_delta_is_refused():
    with pytest.raises(PlanRefused, match="make the grid finer, or use cohort.sampling: all"):
        epsilon([DiscreteGaussianSum(1.0, 0.1, steps=100.0, dimension=1000)] * 10, 1e-5)


def test_where_distributions_cannot_be_computed_divergences_count():
    tiny = Account().plus(GaussianSum(1.0, 0.1), 10)
    assert tiny.spent(1e-12).pld is None
    assert tiny.epsilon(1e-12) == tiny.spent(1e-12).rdp
    assert spent([GaussianSum(0.04, 0.1)], 1e-5).pld is None
