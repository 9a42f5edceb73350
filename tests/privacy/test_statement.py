"""The guarantee in words names unit, relation, noise, sampling, trust and gaps of every mode."""

import pytest

from fedcore.config import load_config
from fedcore.privacy.statement import in_one_line, statement


def words(*overrides: str, epsilon: float | None = 1.5) -> str:
    return statement(load_config(overrides=overrides), 40, epsilon)


CENTRAL = ("privacy.mode=central", "privacy.delta=1e-3")


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ((), ["one client added or removed", "every client in every round", "Trusted: the server"]),
        (
            ("cohort.sampling=poisson", "cohort.rate=0.1"),
            ["Poisson sampling at rate 0.1", "amplification counted"],
        ),
        (("cohort.sampling=uniform", "cohort.size=9"), ["one client replaced", "exactly 9 clients", "Rényi"]),
        (
            ("privacy.mechanism=tree",),
            ["tree aggregation", "set to zero in all rounds", "at most once in 1 rounds"],
        ),
        (
            ("privacy.mechanism=banded", "privacy.bands=4"),
            ["banded matrix factorisation", "at most once in 4 rounds"],
        ),
        (("privacy.mechanism=laplace",), ["L1 norm 1", "Laplace noise"]),
        (("privacy.mechanism=skellam",), ["Skellam noise on a grid", "Accountant: Rényi divergences"]),
        (("privacy.mechanism=discrete_gaussian",), ["discrete Gaussian noise on a grid"]),
        (("privacy.clipping=adaptive",), ["along the 0.5 quantile", "noisy count"]),
        (("privacy.noise=seeded",), ["not a private release"]),
        (("privacy.mode=local",), ["replaced by any other", "adds Gaussian noise", "Trusted: each client"]),
        (
            ("privacy.mode=record", "privacy.unit=record"),
            [
                "Record-level",
                "DP-SGD",
                "silos hold disjoint records",
                "Trusted: each silo",
                "a client as a whole",
            ],
        ),
    ],
)
def test_each_mode_is_said(overrides, parts):
    said = words(*CENTRAL, *overrides)
    for part in parts:
        assert part in said
    assert "ε = 1.5000 at δ = 0.001" in in_one_line(said)
    assert "feature statistics and row counts" in said


def test_evaluation_in_the_clear_is_a_gap_and_its_absence_is_none():
    assert "leave the clients in the clear" in words(*CENTRAL)
    assert "leave the clients in the clear" not in words(*CENTRAL, "privacy.evaluation='off'")


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        (
            "privacy.unit=client",
            "each round: the server adds Gaussian noise of 20 × what one client can move",
        ),
        ("evaluate.every=5", "every 5 rounds: the server adds"),
        ("cohort.sampling=poisson", "each round, over a secret Poisson sample of its own: the server"),
        ("privacy.mode=local", "each client adds"),
        ("privacy.mode=record", "each silo adds Gaussian noise of 20 × what one record can move"),
    ],
)
def test_a_noisy_evaluation_is_said_and_is_no_gap(mode, says):
    said = words(*CENTRAL, mode, "privacy.evaluation=noised")
    assert says in said
    assert "leave the clients in the clear" not in said


def test_before_the_first_round_nothing_is_spent():
    assert "ε not yet spent at δ = 0.001" in words(*CENTRAL, epsilon=None)


def test_without_privacy_that_is_said():
    assert words().startswith("No differential privacy")
    assert in_one_line(words()).endswith("raw rows stay with the client")
