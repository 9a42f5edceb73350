"""Canaries keep their secret, commit to it, and send what only the server's own clip makes harmless."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcore.errors import BadInput
from fedcore.redteam.canary import LONG, Canaries, CanaryFleet
from fedcore.redteam.course import Asked
from fedcore.transforms.clip import norm
from fedcore.types import Reply, Task


class Scripted:
    """A fleet whose clients send zeros, and say who was asked."""

    clients = ("alice", "bob")

    def __init__(self):
        self.asked = []

    def ask(self, task, clients):
        self.asked.append((task.kind, tuple(clients)))
        for client in clients:
            yield Reply(client, {}, np.zeros(20, np.float32) if task.kind == "train" else None)


@given(st.integers(1, 300), st.text(max_size=20))
def test_the_commitment_binds_coins_and_secret(count, secret):
    canaries = Canaries(count, secret)
    assert canaries.commitment == Canaries(count, secret).commitment
    assert canaries.commitment != Canaries(count, secret + "x").commitment
    assert canaries.commitment != Canaries(count, secret, "final").commitment
    assert len(canaries.commitment) == 64
    assert (canaries.included == Canaries(count, secret, "final").included).all()


def test_coins_are_fair_and_directions_are_independent_of_them():
    """Half of 4,000 coins within 4.5 standard deviations (p < 1e-5); products of unit vectors in 400 dimensions."""
    canaries = Canaries(4000, "one")
    assert abs(canaries.included.sum() - 2000) < 4.5 * np.sqrt(1000)
    directions = Canaries(200, "one").directions(400)
    assert np.linalg.norm(directions, axis=1) == pytest.approx(np.ones(200), abs=1e-6)
    products = directions @ directions.T - np.eye(200, dtype=np.float32)
    assert np.abs(products).max() < 6 / np.sqrt(400)
    assert products.std() == pytest.approx(1 / np.sqrt(400), rel=0.05)


@given(st.integers(0, 50))
def test_signs_of_two_rounds_cancel_and_the_black_box_has_one_sign(pair):
    canaries = Canaries(50, "signs")
    assert (canaries.signs(2 * pair) + canaries.signs(2 * pair + 1) == 0).all()
    assert set(np.abs(canaries.signs(pair))) == {1.0}
    assert (Canaries(50, "signs", "final").signs(pair) == 1).all()


def test_signs_are_drawn_anew():
    canaries = Canaries(200, "signs")
    assert (canaries.signs(0) != canaries.signs(2)).any()
    assert (canaries.signs(0) != Canaries(200, "other").signs(0)).any()


def test_included_canaries_answer_with_ten_clips_and_the_others_never():
    fleet, canaries = Scripted(), Canaries(40, "fleet")
    hostile = CanaryFleet(fleet, canaries, 0.5)
    assert list(hostile.clients) == sorted([*Scripted.clients, *canaries.names])
    task = Task("train", "run", 3, np.zeros(20, np.float32))
    replies = {reply.client: reply for reply in hostile.ask(task, hostile.clients)}
    taking_part = {name for name, coin in zip(canaries.names, canaries.included, strict=True) if coin}
    assert set(replies) == taking_part | {"alice", "bob"}
    assert fleet.asked == [("train", ("alice", "bob"))]
    for number in np.flatnonzero(canaries.included):
        update = replies[canaries.names[number]].vector
        assert norm(update) == pytest.approx(LONG * 0.5, rel=1e-5)
        along = canaries.signs(3)[number] * canaries.directions(20)[number] @ update
        assert along == pytest.approx(LONG * 0.5, rel=1e-5)


def test_a_canary_answers_only_when_it_is_asked_to_train():
    hostile = CanaryFleet(Scripted(), Canaries(40, "fleet"), 0.5)
    task = Task("train", "run", 0, np.zeros(20, np.float32))
    assert [reply.client for reply in hostile.ask(task, ["bob"])] == ["bob"]
    asked = Task("evaluate", "run", 0, np.zeros(20, np.float32))
    assert [reply.client for reply in hostile.ask(asked, hostile.clients)] == ["alice", "bob"]


def test_seen_over_all_rounds_is_the_last_model_less_the_first_with_one_sign():
    canaries, rng = Canaries(30, "seen", "final"), np.random.default_rng(5)
    models = rng.standard_normal((6, 50)).astype(np.float32)
    total = sum(canaries.seen(number, models[number], models[number + 1]) for number in range(5))
    assert total == pytest.approx(canaries.directions(50) @ (models[5] - models[0]), abs=1e-4)


def test_a_release_that_is_not_finite_tells_nothing():
    canaries = Canaries(30, "seen")
    before = np.zeros(50, np.float32)
    assert (canaries.seen(0, before, np.full(50, np.nan, np.float32)) == 0).all()


def test_directions_that_no_memory_holds_are_refused():
    with pytest.raises(BadInput, match="1000 canaries with 11000000 parameters need 44 GB"):
        Canaries(1000, "large").directions(11_000_000)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (Asked(canaries=9), "canaries must be 10 or more, got 9"),
        (Asked(canaries=20, guesses=11), "guesses must be between 1 and 10 a side for 20 canaries, got 11"),
        (Asked(guesses=0), "guesses must be between 1 and 100 a side for 200 canaries, got 0"),
        (Asked(confidence=1.0), "confidence must be at least 0.5 and below 1, got 1"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(asked, sentence):
    with pytest.raises(BadInput, match=sentence):
        assert asked.each


def test_a_tenth_is_guessed_on_each_side_unless_it_was_declared():
    assert Asked(canaries=200).each == 20
    assert Asked(canaries=200, guesses=7).each == 7
