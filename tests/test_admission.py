"""Whatever a client sends, the round goes on, and the refusal has its reason."""

import re
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from fedcore.config import load_config
from fedcore.data.schema import Schema
from fedcore.errors import TooFewClients
from fedcore.plan import build_plan
from fedcore.round import State, run_round
from fedcore.store import Store
from fedcore.transforms.clip import norm
from fedcore.types import Reply, Task

MODEL = np.zeros(4, np.float32)
SCHEMA = Schema("s", "classification", "y", ("0", "1"), shape=(3,))


class Scripted:
    """A fleet whose clients send what the test says; evaluation finds every model equally good."""

    def __init__(self, **updates: object) -> None:
        self.clients: Sequence[str] = tuple(sorted(updates))
        self._updates = updates

    def ask(self, task: Task, clients: Sequence[str]) -> Iterator[Reply]:
        for client in clients:
            if task.kind == "evaluate":
                yield Reply(client, {"rows": 1, "loss_sum": 1.0, "correct": 1})
            elif self._updates[client] is not None:
                yield Reply(client, {}, self._updates[client])  # type: ignore[arg-type]


def play(tmp_path, fleet: Scripted, *overrides: str):
    """One round of the scripted fleet, each client weighing the same."""
    config = load_config(overrides=["combine.weights=equal", *overrides])
    rows = dict.fromkeys(fleet.clients, 10)
    plan = build_plan(config, rows, SCHEMA, {}, "a")
    with Store.at(tmp_path) as store:
        state = State("a", 0, MODEL, plan.optimizer.init(MODEL))
        return run_round(state, plan, fleet, store.journal("a", 0))


def row(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (np.zeros(4, np.float64), "float64 of shape"),
        (row(1, 2, 3), r"shape \(3,\), expected float32 of shape \(4,\)"),
        (row(1, 2, 3, np.nan), "not finite"),
        (row(1, 2, 3, np.inf), "not finite"),
    ],
)
def test_an_unusable_update_is_refused_and_the_others_are_combined(tmp_path, bad, why):
    record, state = play(tmp_path, Scripted(a=row(1, 1, 1, 1), b=bad, c=row(3, 3, 3, 3)))
    assert list(record.refused) == ["b"]
    assert re.search(why, record.refused["b"])
    np.testing.assert_array_equal(state.model, [2, 2, 2, 2])


def test_a_lost_client_is_dropped_and_too_many_lost_end_the_round_in_a_sentence(tmp_path):
    record, _ = play(tmp_path / "one", Scripted(a=row(1, 1, 1, 1), b=row(1, 1, 1, 1), c=None))
    assert record.dropped == ("c",)
    with pytest.raises(TooFewClients, match="quorum"):
        play(tmp_path / "two", Scripted(a=row(1, 1, 1, 1), b=None, c=None))


def test_the_server_clips_what_a_client_did_not(tmp_path):
    private = ["privacy.mode=central", "privacy.noise=seeded", "privacy.delta=0.01", "privacy.clip=0.5"]
    fleet = Scripted(a=row(100, 0, 0, 0), b=row(0, 0, 0, 0), c=row(0, 0, 0, 0))
    _, state = play(tmp_path, fleet, *private, "privacy.noise_multiplier=1e-6")
    assert norm(state.model) == pytest.approx(0.5 / 3, rel=1e-3)
