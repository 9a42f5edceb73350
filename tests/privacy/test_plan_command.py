"""``fedcore privacy plan`` as a person types it."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fedcore.cli.privacy import app
from fedcore.errors import BadInput, PlanRefused, UnknownName
from fedcore.privacy.accountant import Account
from fedcore.privacy.events import GaussianSum, RecordSgd


def said(*arguments: str) -> str:
    """Standard output of the command; errors of ours come through as they are."""
    result = CliRunner().invoke(app, ["plan", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def told(*arguments: str) -> Any:
    return json.loads(said(*arguments, "--json"))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


SAMPLED = ("--sampling-rate", "0.05", "--rounds", "1000", "--delta", "1e-5")
FEW = ("--rounds", "10", "--delta", "1e-5")


def test_noise_gives_epsilon_by_both_accountants() -> None:
    facts = told("--noise-multiplier", "6", *SAMPLED)
    assert facts["epsilon"]["pld"] == pytest.approx(0.998, rel=5e-3)
    assert facts["epsilon"]["rdp"] == pytest.approx(1.092, rel=5e-3)
    assert (facts["noise_multiplier"], facts["sampling"], facts["relation"]) == (
        6,
        "poisson",
        "add_or_remove",
    )
    assert facts["curve"][-1] == [1000, facts["epsilon"]["pld"]]


def test_epsilon_gives_the_noise_that_keeps_it_and_no_more() -> None:
    facts = told("--epsilon", "1", *SAMPLED)
    assert facts["epsilon"]["pld"] <= 1
    assert facts["noise_multiplier"] == pytest.approx(5.99, rel=2e-3)


def test_noisy_evaluations_are_paid_beside_the_updates() -> None:
    judged = (
        "-S",
        "privacy.evaluation=noised",
        "-S",
        "privacy.evaluation_noise=12",
        "-S",
        "evaluate.every=300",
    )
    without = told("--noise-multiplier", "6", *SAMPLED)
    facts = told("--noise-multiplier", "6", *SAMPLED, *judged)
    both = Account().plus(GaussianSum(6.0, 0.05), 1000).plus(GaussianSum(12.0, 0.05), 4)
    assert facts["epsilon"]["pld"] == both.epsilon(1e-5) > without["epsilon"]["pld"]
    assert facts["evaluation_noise"] == 12
    assert "a noisy evaluation every 300 rounds, of noise multiplier 12" in facts["statement"]
    assert facts["curve"][0] == without["curve"][0]  # none is due yet
    assert facts["curve"][-1] == [1000, facts["epsilon"]["pld"]]
    within = told("--epsilon", "1", *SAMPLED, *judged)
    assert within["epsilon"]["pld"] <= 1
    assert within["noise_multiplier"] > told("--epsilon", "1", *SAMPLED)["noise_multiplier"]
    assert within["affordable_rounds"] == 1000


def test_a_silos_evaluations_take_every_record_and_come_by_rounds_not_steps(root: Path) -> None:
    silo = ("--noise-multiplier", "4.27", "--sampling-rate", "0.2", "--rounds", "1200", "--delta", "1e-5")
    facts = told(*silo, "--preset", "flights-private", "--params", str(root / "params.yaml"))
    run = Account().plus(RecordSgd(4.27, 0.2, 5), 240).plus(RecordSgd(10.0, 1.0, 1), 2)
    assert facts["epsilon"]["pld"] == pytest.approx(run.epsilon(1e-5))


def test_evaluations_that_cost_too_much_by_themselves_are_named() -> None:
    judged = ("-S", "privacy.evaluation=noised", "-S", "privacy.evaluation_noise=1")
    with pytest.raises(BadInput, match="the evaluations alone cost ε = .* raise privacy.evaluation_noise"):
        told("--epsilon", "1", *SAMPLED, *judged)


def test_the_model_is_set_against_the_noise() -> None:
    facts = told(
        "--noise-multiplier", "6", "--clients", "10000", "--dimension", "650", "--clip", "0.5", *SAMPLED
    )
    assert facts["noise_ratio"] == pytest.approx(0.306, rel=1e-3)
    assert facts["least_clients"] == 1530
    assert facts["noise_on_sum"] == 3
    assert facts["noise_on_mean"] == pytest.approx(3 / 500)


def test_a_fixed_cohort_has_divergences_only() -> None:
    facts = told(
        *("--noise-multiplier", "2", "--clients", "10000", "--sampling", "fixed", "--sampling-rate", "0.01"),
        *("--rounds", "1000", "--delta", "1e-5"),
    )
    assert facts["epsilon"]["pld"] is None
    assert facts["epsilon"]["rdp"] == pytest.approx(3.58, rel=5e-3)
    assert facts["relation"] == "replace"


def test_without_sampling_everyone_is_asked_whatever_the_rate() -> None:
    facts = told("--noise-multiplier", "20", "--sampling", "none", "--sampling-rate", "0.1", *FEW)
    assert facts["sampling_rate"] == 1
    assert facts["epsilon"] == told("--noise-multiplier", "20", *FEW)["epsilon"]


def test_a_person_sees_a_table_the_guarantee_and_the_picture() -> None:
    shown = said(
        "--noise-multiplier",
        "20",
        *FEW,
        "--clients",
        "5000",
        "--dimension",
        "650",
        "--picture",
        "made/plan.png",
    )
    for words in (
        "noise multiplier",
        "ε by PLD",
        "R = z·√d/(q·N) = 0.102",
        "reasonable",
        "ε = ",
    ):
        assert words in shown
    assert Path("made/plan.png").stat().st_size > 5000
    assert "not provable" in said(
        "--noise-multiplier", "90", "--sampling", "fixed", "--sampling-rate", ".1", "--clients", "1000", *FEW
    )
    assert "training will suffer" in said(
        "--noise-multiplier", "20", *FEW, "--clients", "1600", "--dimension", "40000", "--picture", "plan.svg"
    )
    assert "1,200,000 parameters" in said("--noise-multiplier", "20", *FEW)


def test_a_preset_says_what_is_not_given() -> None:
    facts = told("--preset", "digits-private", "--noise-multiplier", "2")
    assert (facts["clients"], facts["rounds"], facts["sampling_rate"], facts["delta"]) == (
        100,
        40,
        0.3,
        0.001,
    )
    assert facts["clip"] == 0.5
    Path("params.yaml").write_text("data: {sites: [a, b, c]}\n")
    with pytest.raises(BadInput, match="with 3 clients must stay below 1/3"):
        said(
            "--preset",
            "digits-private",
            "-S",
            "data.sites=[a, b, c]",
            "--noise-multiplier",
            "2",
            "--delta",
            ".4",
        )
    assert told("--noise-multiplier", "20", *FEW)["clients"] is None


def test_client_level_privacy_for_few_silos_is_refused_with_the_arithmetic_and_the_way_out() -> None:
    asked = ("--clients", "16", "--epsilon", "1", "--rounds", "100", "--delta", "1e-3", "--dimension", "650")
    with pytest.raises(
        PlanRefused, match=r"over 16 clients: noise multiplier 2\d\.\d.*√650/\(1·16\) = .*clips"
    ) as refused:
        said(*asked)
    assert "at least" in str(refused.value)
    assert "privacy.unit: record" in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "exactly one of --epsilon and --noise-multiplier"),
        (("--epsilon", "1", "--noise-multiplier", "1"), "exactly one of"),
        (("--epsilon", "0"), "epsilon must be above 0, got 0"),
        (("--epsilon", "-1"), "epsilon must be above 0, got -1"),
        (
            ("--noise-multiplier", "0"),
            "noise multiplier must be above 0, got 0: without noise nothing is private",
        ),
        (("--noise-multiplier", "nan"), "noise multiplier must be above 0, got nan"),
        (("--noise-multiplier", "1", "--sampling-rate", "0"), r"must lie in \(0, 1\], got 0"),
        (("--noise-multiplier", "1", "--sampling-rate", "1.5"), "got 1.5"),
        (("--noise-multiplier", "1", "--rounds", "0"), "rounds must be 1 or more, got 0"),
        (("--noise-multiplier", "1", "--delta", "1"), "delta must lie between 0 and 1"),
        (
            ("--noise-multiplier", "1", "--delta", "0.01", "--clients", "100"),
            "must stay below 1/100, or publishing",
        ),
        (("--noise-multiplier", "1", "--clients", "0"), "clients must be 1 or more"),
        (("--noise-multiplier", "1", "--dimension", "0"), "dimension must be 1 or more"),
        (("--noise-multiplier", "1", "--clip", "0"), "clip must be above 0, got 0"),
        (("--noise-multiplier", "1", "--sampling", "fixed"), "say how many there are with --clients"),
        (("--noise-multiplier", "9", "--picture", "plan.bmp"), "name a .png, .svg or .pdf"),
    ],
)
def test_bad_input_is_one_sentence(arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        said(*arguments)


def test_an_unknown_preset_is_named() -> None:
    with pytest.raises(UnknownName, match="did you mean 'digits'"):
        said("--noise-multiplier", "1", "--preset", "digit")


def test_help_shows_examples() -> None:
    assert "fedcore privacy plan --clients 10000 --epsilon 1" in said("--help")
