"""The budget is the people's, not a run's: who shares it, and how training ends when it is spent."""

import json
from pathlib import Path

import pytest
import sqlalchemy as sa

from fedcore.coordinator import advance, finish, open_run, quorum, records, simulate
from fedcore.errors import BadInput, BudgetSpent, PlanRefused
from fedcore.ledger import PrivacyLedger, entries, raise_limit, spending, verified
from fedcore.privacy.events import event_from_json
from fedcore.store import Store

PRIVATE = (
    "privacy.mode=central",
    "combine.weights=equal",
    "privacy.delta=0.01",
    "privacy.noise=seeded",
    "privacy.noise_multiplier=2.0",
    "privacy.epsilon=8",
)


def spend_all(workdir: Path) -> None:
    """Another run on the same account takes all that is left."""
    with Store.at(workdir) as store:
        opened, first = entries(store)[:2]
        terms = {"limit": opened["body"]["limit"], "delta": opened["body"]["delta"]}
        other = PrivacyLedger(store, opened["account"], identity="other", **terms)
        event = event_from_json(first["body"]["event"])
        with pytest.raises(BudgetSpent):
            for number in range(1000):
                other.reserve("other", number, event)


@pytest.fixture
def overtaken():
    """Makes another run spend everything just when a round after the first is about to be charged."""
    undo = []

    def arrange(workdir: Path) -> None:
        left = [workdir]

        def watch(connection, cursor, statement, *rest) -> None:
            if statement != "BEGIN IMMEDIATE" or not left:
                return
            place = left.pop()
            with Store.at(place) as store:
                kinds = [entry["kind"] for entry in entries(store)]
            if kinds.count("reserve") == kinds.count("settle") > 0:
                spend_all(place)
            else:
                left.append(place)

        sa.event.listen(sa.Engine, "before_cursor_execute", watch)
        undo.append(watch)

    yield arrange
    for watch in undo:
        sa.event.remove(sa.Engine, "before_cursor_execute", watch)


def charged(workdir: Path, run: str) -> int:
    with Store.at(workdir) as store:
        return sum(entry["kind"] == "reserve" and entry["run"] == run for entry in entries(store))


def test_a_run_that_is_overtaken_ends_with_its_last_good_model(workdir, settings, overtaken):
    overtaken(workdir)
    result = simulate(settings(*PRIVATE), workdir, "a")
    assert result.rounds == 1
    assert result.stopped == "privacy budget spent: one more round would exceed ε = 8"
    assert result.model_sha256 == records(workdir, "a")[0].model_sha256
    assert result.model_dir.is_dir()
    assert charged(workdir, "a") == 1
    assert simulate(settings(*PRIVATE), workdir, "a") == result
    with pytest.raises(BudgetSpent, match="after round 0, limit 8"):
        simulate(settings(*PRIVATE), workdir, "b")
    with Store.at(workdir) as store:
        assert store.runs() == ["a"], "a run that cannot pay its first round is not entered"


def test_tasks_of_a_round_that_cannot_be_paid_end_the_training(workdir, settings):
    """What Airflow's tasks are told: nothing to wait for, and that the training is done."""
    open_run(settings(*PRIVATE), workdir, "a")
    last = advance(workdir, "a", 0, "record")
    assert last["stopped"] is None
    spend_all(workdir)
    for step in ("select", "ask", "record"):
        facts = advance(workdir, "a", 1, step)
        assert facts["done"]
        assert "privacy budget spent: ε would be" in facts["stopped"]
        assert (facts["metrics"], facts["epsilon"]) == (last["metrics"], last["epsilon"])
        assert quorum(workdir, "a", 1)["met"]
    assert not quorum(workdir, "a", 2)["met"]
    finish(workdir, "a")
    assert len(records(workdir, "a")) == 1
    with Store.at(workdir) as store:
        raise_limit(store, entries(store)[0]["account"], 80.0, "to see that it goes on")
    assert advance(workdir, "a", 1, "select")["stopped"], "the run's own limit is still 8"


def test_the_first_round_that_cannot_be_paid_is_an_error_of_the_task(workdir, settings):
    open_run(settings(*PRIVATE), workdir, "a")
    open_run(settings(*PRIVATE), workdir, "b")
    advance(workdir, "a", 0, "record")
    spend_all(workdir)
    with pytest.raises(BudgetSpent):
        advance(workdir, "b", 0, "select")
    with pytest.raises(BudgetSpent):
        simulate(settings(*PRIVATE), workdir, "b")


def test_a_paid_round_is_finished_though_another_spent_the_rest(workdir, settings):
    """Killed after it reserved: the round is paid for, so it is not dropped, nor charged again."""
    config = settings(*PRIVATE, "run.rounds=2")
    open_run(config, workdir, "a")
    advance(workdir, "a", 0, "record")
    advance(workdir, "a", 1, "select")
    spend_all(workdir)
    assert simulate(config, workdir, "a").rounds == 2
    assert charged(workdir, "a") == 2


@pytest.mark.parametrize(
    "change", ["data.standardize=false", "data.sites=[client-000,client-001,client-002]"]
)
def test_other_settings_on_the_same_data_find_no_fresh_budget(workdir, settings, change):
    simulate(settings(*PRIVATE, "run.rounds=1"), workdir, "a")
    simulate(settings(*PRIVATE, "run.rounds=1", change), workdir, "b")
    with Store.at(workdir) as store:
        (account,) = spending(verified(store))
    assert [run.run for run in account.runs] == ["a", "b"]


def test_a_run_that_wants_more_than_the_account_has_is_refused_before_it_is_entered(workdir, settings):
    simulate(settings(*PRIVATE, "run.rounds=1"), workdir, "a")
    with pytest.raises(PlanRefused, match=r"has the limit ε = 8 and privacy.epsilon is 9"):
        open_run(settings(*PRIVATE, "privacy.epsilon=9"), workdir, "b")
    with Store.at(workdir) as store:
        assert store.runs() == ["a"]


def test_data_without_a_version_have_no_account(workdir, settings):
    simulate(settings("run.rounds=1"), workdir, "a")
    checks = workdir / "data" / "checks" / "checks.json"
    tree = json.loads(checks.read_text(encoding="utf-8"))
    tree["sites"]["client-001"]["digest"] = ""
    checks.write_text(json.dumps(tree), encoding="utf-8")
    where = {"sites": workdir / "data" / "sites", "checks": checks}
    with pytest.raises(BadInput, match=r"data version of 1 sites is not registered \(client-001\)"):
        open_run(settings(*PRIVATE), workdir, "b", **where)
    assert open_run(settings(), workdir, "c", **where).name == "c"
