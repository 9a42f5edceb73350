"""Whatever a client sends, the round goes on, and the refusal has its reason."""

import re
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from fedcore.config import load_config
from fedcore.data.schema import Schema
from fedcore.errors import TooFewClients
from fedcore.plan import build_plan
from fedcore.round import run_round
from fedcore.state import State
from fedcore.store import Store
from fedcore.transforms.clip import norm
from fedcore.types import Reply, Task

MODEL = np.zeros(4, np.float32)
SCHEMA = Schema("s", "classification", "y", ("0", "1"), shape=(3,))


class Scripted:
    """A fleet whose clients send what the test says: an update, a reply, or some; every model is equally good."""

    def __init__(self, **updates: object) -> None:
        self.clients: Sequence[str] = tuple(sorted(updates))
        self._updates = updates

    def ask(self, task: Task, clients: Sequence[str]) -> Iterator[Reply]:
        for client in clients:
            if task.kind == "evaluate":
                yield Reply(client, {"rows": 1, "loss_sum": 1.0, "correct": 1})
            elif isinstance(sent := self._updates[client], list):
                yield from sent
            elif sent is not None:
                yield sent if isinstance(sent, Reply) else Reply(client, {}, sent)  # type: ignore[arg-type]


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
    private = [
        "local.algorithm=sgd",
        "privacy.mode=central",
        "privacy.noise=seeded",
        "privacy.delta=0.01",
        "privacy.clip=0.5",
    ]
    fleet = Scripted(a=row(100, 0, 0, 0), b=row(0, 0, 0, 0), c=row(0, 0, 0, 0))
    _, state = play(tmp_path, fleet, *private, "privacy.noise_multiplier=1e-6")
    assert norm(state.model) == pytest.approx(0.5 / 3, rel=1e-3)


ONES = row(1, 1, 1, 1)


@pytest.mark.parametrize(
    ("stray", "why"),
    [
        (Reply("b", {}, ONES, round=7), "the update is of round 7, this is round 0"),
        (Reply("b", {}, ONES, model_sha256="ab" * 32), "starts from model abababababab, this round's is"),
        (Reply("b", {}, None), "the reply holds no update"),
        (Reply("b", error="no rows"), "no rows"),
    ],
)
def test_a_reply_that_belongs_elsewhere_or_holds_nothing_is_refused(tmp_path, stray, why):
    record, state = play(tmp_path, Scripted(a=ONES, b=stray, c=row(3, 3, 3, 3)))
    assert list(record.refused) == ["b"]
    assert why in record.refused["b"]
    np.testing.assert_array_equal(state.model, [2, 2, 2, 2])


def test_a_second_answer_and_one_nobody_asked_for_do_not_count(tmp_path):
    twice = [Reply("a", {}, ONES), Reply("a", {}, row(9, 9, 9, 9)), Reply("z", {}, row(9, 9, 9, 9))]
    record, state = play(tmp_path, Scripted(a=twice, b=row(3, 3, 3, 3)))
    np.testing.assert_array_equal(state.model, [2, 2, 2, 2])
    assert record.unusual["a"] == "answered twice, the first answer counts"
    assert record.unusual["z"] == "answered without being asked"


def test_unusual_updates_are_noted_and_combined_all_the_same(tmp_path):
    sent = {f"c{i}": row(1, 1, 1, 1 + i / 10) for i in range(6)}
    record, _ = play(
        tmp_path, Scripted(**sent, far=row(1000, 0, 0, 0), same=sent["c0"], zero=row(0, 0, 0, 0))
    )
    assert "times the median's" in record.unusual["far"]
    assert record.unusual["same"] == "the same update as c0"
    assert record.unusual["zero"] == "the update is zero"
    assert not record.refused
    assert record.suspicion["far"] == record.suspicion["zero"] > 0
    assert not {"c1", "c2"} & set(record.suspicion)


def test_under_privacy_nothing_about_single_updates_is_noted(tmp_path):
    private = ["local.algorithm=sgd", "privacy.mode=central", "privacy.noise=seeded", "privacy.delta=0.01"]
    record, _ = play(tmp_path, Scripted(a=ONES, b=ONES, c=row(1000, 0, 0, 0)), *private)
    assert (record.unusual, record.groups, record.suspicion, record.reduced) == ({}, (), {}, {})
