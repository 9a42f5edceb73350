"""How many rounds a budget pays for: told before anyone trains, with the arithmetic."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from fedcore import coordinator
from fedcore.cli import main
from fedcore.cli.privacy import app
from fedcore.errors import BudgetSpent
from fedcore.privacy.accountant import Account
from fedcore.privacy.events import Covered, GaussianSum, MatrixSums
from fedcore.privacy.planning import affordable
from fedcore.store import Store

DELTA = 1e-3


@given(st.floats(0.5, 20), st.integers(1, 60), st.floats(0.3, 20))
def test_one_round_more_than_affordable_would_exceed_the_budget(noise, rounds, limit):
    event = GaussianSum(noise, None)
    found = affordable(lambda number: event, rounds, DELTA, limit)
    assert 0 <= found.rounds <= rounds
    if found.rounds:
        assert Account().plus(event, found.rounds).epsilon(DELTA) <= limit
    if found.rounds < rounds:
        assert Account().plus(event, found.rounds + 1).epsilon(DELTA) > limit
    assert set(found.costs) <= {1, found.rounds, found.rounds + 1, rounds}


def test_a_run_that_pays_once_is_affordable_whole_or_not_at_all():
    whole = MatrixSums(3.0, 1.0, 20)

    def event(number):
        return Covered(0) if number else whole

    cost = Account().plus(whole).epsilon(DELTA)
    assert affordable(event, 20, DELTA, cost).rounds == 20
    assert affordable(event, 20, DELTA, cost * 0.99).rounds == 0


def planned(*arguments):
    done = CliRunner().invoke(app, ["plan", *arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_the_plan_says_after_which_round_the_budget_ends(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    budget = ("--rounds", "100", "--delta", "1e-3", "-S", "privacy.epsilon=3")
    few = planned("--noise-multiplier", "2", *budget)
    assert (few["budget"], few["affordable_rounds"]) == (3, 3)
    assert (
        "But a budget of ε = 3 affords 3 of 100 rounds on an account of its own (1 cost ε = "
        in few["statement"]
    )
    assert "training would end after round 3; add noise" in few["statement"]
    none = planned("--noise-multiplier", "0.5", *budget)
    assert none["affordable_rounds"] == 0
    assert "training would not begin" in none["statement"]
    kept = planned("--epsilon", "2", *budget)
    assert (kept["budget"], kept["affordable_rounds"]) == (2, 100)
    assert "affords" not in kept["statement"]


SMALL = (
    "data.partition.clients=4",
    "model.hidden=[8]",
    "local.epochs=1",
    "tracking.enabled=false",
    "privacy.max_noise_ratio=1e6",
)
PRIVATE = (
    "privacy.mode=central",
    "privacy.noise=seeded",
    "privacy.delta=1e-3",
    "privacy.epsilon=3",
    "combine.weights=equal",
    "run.rounds=100",
)


def test_a_run_says_it_first_and_in_its_guarantee_and_stops_there(workdir, root, settings, capsys):
    config = settings(*PRIVATE, "privacy.noise_multiplier=2")
    said = []
    result = coordinator.simulate(config, workdir, "few", announce=said.append)
    assert result.rounds == 3
    assert result.stopped == "privacy budget spent: one more round would exceed ε = 3"
    assert said[0].startswith(
        "a budget of ε = 3 affords 3 of 100 rounds on an account of its own (1 cost ε = "
    )
    words = (workdir / "runs" / "few" / "guarantee.txt").read_text()
    assert f"Of the rounds planned, {said[0]}." in words
    options = [word for s in (*SMALL, *PRIVATE, "privacy.noise_multiplier=2") for word in ("-S", s)]
    with pytest.raises(SystemExit) as ended:
        main(
            [
                "simulate",
                "--params",
                str(root / "params.yaml"),
                "--preset",
                "digits",
                "--run",
                "few",
                "--workdir",
                str(workdir),
                *options,
            ]
        )
    assert not ended.value.code
    assert f"A{said[0][1:]}.\n" in capsys.readouterr().err


def test_a_budget_for_less_than_one_round_enters_no_run(workdir, settings):
    with pytest.raises(BudgetSpent):
        coordinator.simulate(settings(*PRIVATE, "privacy.noise_multiplier=0.5"), workdir, "none")
    with Store.at(workdir) as store:
        assert store.run("none") is None
