"""Killed at every step of the ledger: never under-counted, never counted twice, the same bytes in the end."""

import hashlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from fedcore.coordinator import simulate
from fedcore.ledger import PrivacyLedger, entries
from fedcore.privacy.events import GaussianSum
from fedcore.store import Store

EVENT = GaussianSum(noise_multiplier=2.0, sampling_rate=None)
PRIVATE = (
    "privacy.mode=central",
    "combine.weights=equal",
    "privacy.delta=0.01",
    "privacy.noise=seeded",
    "privacy.noise_multiplier=2.0",
    "privacy.epsilon=50",
    "run.rounds=2",
)


def die_at(point: int) -> None:
    """Kill this process at its `point`-th step around a row of the ledger or of select, release, record.

    Each such row has three: before it is inserted, before its transaction is committed, and after.
    """
    left, writing = [point], [False]

    def step() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def execute(connection, cursor, statement, parameters, *rest) -> None:
        steps = {"select", "release", "record"} & set(map(str, parameters))
        if statement.startswith("INSERT INTO ledger") or (
            statement.startswith("INSERT INTO steps") and steps
        ):
            writing[0] = True
            step()

    def commit(connection) -> None:
        if writing[0]:
            step()

    def done(*_: object) -> None:
        if writing[0]:
            writing[0] = False
            step()

    sa.event.listen(sa.Engine, "before_cursor_execute", execute)
    sa.event.listen(sa.Engine, "commit", commit)
    sa.event.listen(sa.Pool, "checkin", done)


def killed(work: Callable[[], object], point: int) -> bool:
    """Whether `work`, in a process of its own, was killed at that point (False: it finished)."""
    child = os.fork()
    if child == 0:
        try:
            die_at(point)
            work()
            os._exit(0)
        except BaseException:
            os._exit(3)
    status = os.waitpid(child, 0)[1]
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0, "the work failed by itself"
    return os.WIFSIGNALED(status)


def told(place: Path) -> list[dict[str, object]]:
    with Store.at(place) as store:
        return [{k: e[k] for k in ("account", "kind", "run", "round", "body")} for e in entries(store)]


def pay(place: Path, seen: Path) -> None:
    """A round on a bare ledger; what was seen of it is written down in between."""
    with Store.at(place) as store:
        ledger = PrivacyLedger(store, "x@v1", limit=100, delta=1e-5, identity="one")
        if not (seen / "released").exists():
            ledger.reserve("a", 0, EVENT)
            (seen / "released").touch()
        ledger.settle("a", 0, EVENT)


def test_a_kill_at_any_step_neither_loses_a_charge_nor_makes_two(tmp_path):
    """Every place at which a process can die between a charge and what is seen of it."""
    calm, point = tmp_path / "calm", 0
    calm.mkdir()
    pay(calm / "w", calm)
    while True:
        point += 1
        wild = tmp_path / str(point)
        wild.mkdir()
        died = killed(lambda wild=wild: pay(wild / "w", wild), point)
        kinds = [entry["kind"] for entry in told(wild / "w")]
        assert "reserve" in kinds or not (wild / "released").exists(), "released without a charge"
        pay(wild / "w", wild)
        assert told(wild / "w") == told(calm / "w")
        if not died:
            break
    assert point > 6


def everything(place: Path) -> dict[str, object]:
    folder = place / "runs" / "a"
    files = [*sorted((folder / "model").iterdir()), folder / "records.jsonl"]
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files} | {"ledger": told(place)}


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_training_killed_at_any_step_of_the_ledger_ends_in_the_same_bytes(new_workdir, settings):
    config = settings(*PRIVATE)
    calm, point = new_workdir("calm"), 0
    simulate(config, calm, "a")
    undisturbed = everything(calm)
    while True:
        point += 1
        wild = new_workdir(str(point))
        if not killed(lambda wild=wild: simulate(config, wild, "a"), point):
            break
        simulate(config, wild, "a")
        assert json.dumps(everything(wild)) == json.dumps(undisturbed), f"killed at point {point}"
    assert point > 24
