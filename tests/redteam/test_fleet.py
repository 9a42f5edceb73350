"""A fleet with liars is a fleet: honest replies are untouched, and forged ones come after all of them."""

from collections.abc import Sequence

import numpy as np
import pytest

from fedcore.redteam import ATTACKS
from fedcore.redteam.fleet import HostileFleet, TransformedFleet, draw_hostile
from fedcore.transforms.clip import clip, norm
from fedcore.types import Reply, Task

MODEL = np.zeros(4, np.float32)
TRAIN = Task("train", "a", 0, MODEL)


class Scripted:
    """Clients that send a row of their number; those named in `broken` send an error."""

    def __init__(self, count: int, broken: Sequence[str] = ()) -> None:
        self.clients = tuple(f"c{i}" for i in range(count))
        self._broken = broken

    def ask(self, task, clients):
        for client in reversed(list(clients)):
            wrong = "no data" if client in self._broken else None
            row = np.full(4, float(client[1:]) + 1, np.float32)
            yield Reply(client, {}, None if wrong else row, wrong)


def hostile(attack="sign_flip", liars=("c1", "c3"), inner=None, combine=None):
    total = combine or (lambda clients, rows: rows.mean(axis=0))
    return HostileFleet(inner or Scripted(5), liars, ATTACKS[attack], total, seed=1)


def asked(fleet, task=TRAIN):
    return {reply.client: reply for reply in fleet.ask(task, fleet.clients)}


def test_honest_replies_are_as_they_were_and_liars_send_what_the_attack_forges():
    replies = asked(hostile())
    assert set(replies) == {"c0", "c1", "c2", "c3", "c4"}
    assert [replies[f"c{i}"].vector[0] for i in range(5)] == [1, -2, 3, -4, 5]


def test_liars_come_last_and_do_not_answer_an_evaluation():
    order = [reply.client for reply in hostile().ask(TRAIN, ("c1", "c0", "c3", "c2", "c4"))]
    assert set(order[-2:]) == {"c1", "c3"}
    assert set(asked(hostile(), Task("evaluate", "a", 0, MODEL))) == {"c0", "c2", "c4"}


def test_the_searching_liar_sees_the_aggregation_with_names_of_the_rows():
    seen = []

    def combine(clients, rows):
        seen.append((tuple(clients), len(rows)))
        return rows.mean(axis=0)

    asked(hostile("optimal_ipm", combine=combine))
    assert set(seen) == {(("c0", "c2", "c4", "c1", "c3"), 5)}


def test_liars_without_honest_updates_send_their_own():
    replies = asked(hostile(inner=Scripted(5, broken=("c0", "c2", "c4"))))
    assert replies["c1"].vector[0] == 2
    assert replies["c0"].error == "no data"


def test_a_cohort_without_liars_is_left_alone():
    replies = list(hostile().ask(TRAIN, ("c0", "c2")))
    assert [reply.vector[0] for reply in replies] == [3, 1]


def test_liars_are_drawn_from_the_seed_alone():
    clients = [f"c{i}" for i in range(25)]
    assert draw_hostile(clients, 5, 1) == draw_hostile(clients, 5, 1)
    assert draw_hostile(clients, 5, 1) != draw_hostile(clients, 5, 2)
    assert len(set(draw_hostile(clients, 5, 1))) == 5
    assert draw_hostile(clients, 0, 1) == ()


def test_updates_go_through_the_transform_and_errors_do_not():
    fleet = TransformedFleet(Scripted(3, broken=("c2",)), clip(1.0), seed=1)
    replies = asked(fleet)
    assert norm(replies["c0"].vector) == pytest.approx(1.0)
    assert replies["c2"].error == "no data"
