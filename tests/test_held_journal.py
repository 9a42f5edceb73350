"""A simulation makes durable what would be lost, in few moves, and ends in the bytes of a run that keeps everything."""

from dataclasses import replace

import pytest
import sqlalchemy as sa

from fedcore.coordinator import STEPS, advance, finish, open_run, simulate
from fedcore.session import seen
from fedcore.simulation.held import HeldJournal, lasting
from fedcore.state import Outcome
from fedcore.store import STEPS as TABLE
from fedcore.store import Store
from fedcore.types import Reply

CENTRAL = ("privacy.mode=central", "combine.weights=equal", "privacy.delta=0.01", "privacy.epsilon=500")
LOCAL = ("privacy.mode=local", "combine.weights=equal", "privacy.delta=0.01")
SYSTEM, SEEDED = "privacy.noise=system", "privacy.noise=seeded"


def committed(place, run: str) -> list[str]:
    with Store.at(place) as store, store.reading() as connection:
        query = sa.select(TABLE.c.step).where(TABLE.c.run == run, TABLE.c.round == 0)
        return sorted(step.split("/")[0] for step in connection.execute(query).scalars())


@pytest.mark.parametrize("overrides", [(), (*CENTRAL, SEEDED)], ids=["plain", "central"])
def test_a_run_played_whole_is_the_run_taken_step_by_step(new_workdir, settings, overrides):
    config = settings(*overrides, "run.rounds=2")
    whole, stepped = new_workdir("whole"), new_workdir("stepped")
    simulate(config, whole, "a")
    open_run(config, stepped, "a")
    for number in range(2):
        for step in STEPS:
            advance(stepped, "a", number, step)
    finish(stepped, "a")
    for name in ("records.jsonl", "model/model.safetensors"):
        left, right = (place / "runs/a" / name for place in (whole, stepped))
        assert left.read_bytes() == right.read_bytes()
    assert "reply" not in committed(whole, "a")
    assert set(STEPS) == {step for step in committed(whole, "a") if step in STEPS}
    assert committed(stepped, "a").count("reply") == 4


def test_replies_that_cannot_be_had_again_are_kept_one_by_one(workdir, settings):
    simulate(settings(*LOCAL, SYSTEM, "run.rounds=1", "privacy.epsilon=500"), workdir, "a")
    assert committed(workdir, "a").count("reply") == 4


@pytest.mark.parametrize(
    ("overrides", "last"),
    [
        ((), "record"),
        ((*CENTRAL, SYSTEM), "combine"),
        ((*CENTRAL, SEEDED), "combine"),
        ((*LOCAL, SEEDED), "combine"),
        ((*LOCAL, SYSTEM), None),
    ],
)
def test_what_lasts_is_what_a_crash_would_lose(workdir, settings, overrides, last):
    config = settings(*overrides)
    open_run(config, workdir, "a")
    with seen(workdir, "a") as opened:
        at, plan = lasting(opened.plan, config.privacy), opened.plan
    assert lasting(replace(plan, asynchrony=object()), config.privacy) is None
    private = config.privacy.mode != "none"
    assert (lasting(replace(plan, remembers=True), config.privacy) is None) == private
    assert (at is None) if last is None else (at is not None and last in at)


def test_held_steps_are_committed_together_and_replies_stay_the_first(workdir):
    with Store.at(workdir) as store:
        journal = HeldJournal(store, "r", 0, frozenset({"release"}))
        journal.keep(Reply("a", {"loss": 1.0}))
        journal.keep(Reply("a", {"loss": 2.0}))
        assert journal.reply("a").facts == {"loss": 1.0}
        assert journal.reply("b") is None
        assert list(journal.replies()) == ["a"]
        once = journal.once("ask", lambda: Outcome({"cohort": ("a", "b")}))
        assert once.facts == {"cohort": ["a", "b"]}  # as it would be read
        assert journal.kept("ask") is once
        assert store.steps("r", 0) == {}
        assert set(journal.seconds()) == {"ask"}
        journal.once("release", lambda: Outcome({"done": True}))
        assert set(store.steps("r", 0)) == {"ask", "release"}
        assert journal.once("ask", lambda: pytest.fail("computed twice")).facts == once.facts
        assert journal.at(1).kept("ask") is None
