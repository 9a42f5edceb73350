"""Liars that stand out are found every time, honest clients are left alone, and trust is lost and regained."""

import numpy as np
import pytest

from fedcore.coordinator import records as records_of
from fedcore.coordinator import simulate
from fedcore.errors import PlanRefused
from fedcore.suspicion import _middle, coordinated, evidence, remembered, trusted, unusual_norms
from fedcore.types import Reply

ROUNDS = 100


def honest(number: int, clients: int, size: int = 2000) -> np.ndarray:
    """Updates with a common part, own parts and own lengths, as clients with different data send."""
    rng = np.random.default_rng(number)
    rows = rng.standard_normal(size) + 2 * rng.standard_normal((clients, size))
    return (rows * rng.uniform(0.5, 2, (clients, 1))).astype(np.float32)


def norms(updates: np.ndarray) -> np.ndarray:
    return np.linalg.norm(updates.astype(np.float64), axis=1)


def test_one_attacker_at_a_thousand_times_is_found_in_every_round():
    for number in range(ROUNDS):
        updates = honest(number, 10)
        updates[number % 10] *= 1000
        assert number % 10 in unusual_norms(norms(updates))


def test_honest_clients_are_not_called_unusual():
    accused = [len(unusual_norms(norms(honest(number, 20)))) for number in range(ROUNDS)]
    assert sum(accused) <= 0.005 * 20 * ROUNDS


@pytest.mark.parametrize("angle", [0.0, 0.3])
def test_five_coordinated_of_fifty_are_found_in_every_round_and_nobody_else(angle):
    for number in range(ROUNDS):
        rng = np.random.default_rng(1000 + number)
        updates = honest(number, 50)
        together = tuple(sorted(rng.choice(50, 5, replace=False).tolist()))
        plan = 3 * rng.standard_normal(2000)
        updates[list(together)] = plan + angle * rng.standard_normal((5, 2000))
        assert coordinated(updates, rng) == (together,)


def test_honest_clients_are_no_group():
    found = [coordinated(honest(number, 50), np.random.default_rng(number)) for number in range(ROUNDS)]
    assert sum(map(len, found)) == 0


def test_groups_are_found_from_a_sample_of_columns_too(monkeypatch):
    monkeypatch.setattr("fedcore.suspicion.CELLS", 2**12)
    updates = honest(1, 20)
    updates[[3, 8, 11]] = 3 * np.random.default_rng(5).standard_normal(2000)
    assert coordinated(updates, np.random.default_rng(0)) == ((3, 8, 11),)


@pytest.mark.parametrize("clients", [1, 2, 3])
def test_too_few_clients_are_no_group_and_never_far(clients):
    assert coordinated(honest(1, clients), np.random.default_rng(0)) == ()
    assert unusual_norms(np.arange(clients, dtype=float)) == {0: "the update is zero"}


def test_evidence_is_what_a_client_lost_more_than_the_others():
    found = evidence({"a": 1.0, "b": 1.0, "c": 0.2}, ["d"], ["e"])
    assert found == {"a": 0.0, "b": 0.0, "c": 0.8, "d": 1.0, "e": 1.0}
    krum = evidence({"a": 1.0, "b": 0.0, "c": 0.0}, [], [])
    assert set(krum.values()) == {0.0}  # who keeps one of all accuses nobody
    assert evidence({}, [], []) == {}


def test_suspicion_rises_with_evidence_and_is_forgotten_without():
    score: dict[str, float] = {}
    for _ in range(20):
        score = remembered(score, {"a": 1.0, "b": 0.0})
    assert score == {"a": pytest.approx(1.0, abs=1e-3)}
    for _ in range(50):
        score = remembered(score, {})
    assert score.get("a", 0.0) < 1e-3


def test_the_suspect_are_not_asked_but_never_too_few_are():
    suspicion = {"a": 0.9, "b": 0.8, "c": 0.1}
    assert trusted("abcd", suspicion, 0.5, 1) == ("c", "d")
    assert trusted("abcd", suspicion, 0.5, 3) == ("b", "c", "d")
    assert trusted("abcd", suspicion, 1.0, 1) == tuple("abcd")


def test_in_a_run_a_liar_is_named_and_then_no_longer_asked(workdir, settings, monkeypatch):
    from fedcore.local.client import Client

    answer = Client.answer

    def lying(self, task, scores=None):
        reply = answer(self, task, scores)
        if task.kind != "train" or self.name != "client-002":
            return reply
        return Reply(self.name, reply.facts, reply.vector * 1000, None, reply.round, reply.model_sha256)

    monkeypatch.setattr(Client, "answer", lying)
    chosen = settings("run.rounds=6", "cohort.max_suspicion=0.6", "combine.rule=trimmed_mean", "combine.f=1")
    simulate(chosen, workdir, "a")
    found = records_of(workdir, "a")
    assert all("client-002" in record.unusual for record in found if "client-002" in record.cohort)
    assert "client-002" in found[0].cohort
    assert found[3].excluded == ("client-002",)
    assert "client-002" not in found[3].cohort
    assert found[0].suspicion["client-002"] < found[2].suspicion["client-002"]


def test_under_privacy_who_is_asked_may_not_depend_on_what_was_sent(workdir, settings):
    private = ["privacy.mode=central", "combine.weights=equal", "privacy.delta=0.01"]
    with pytest.raises(PlanRefused, match="cohort.max_suspicion 0.5: who is asked would depend"):
        simulate(settings(*private, "cohort.max_suspicion=0.5"), workdir, "a")


@pytest.mark.parametrize("n", [4, 5, 10, 11])
def test_the_centre_is_the_median_to_the_bit(rng, n):
    updates = rng.normal(size=(n, 999)).astype(np.float32)
    wide = np.median(updates.astype(np.float64), axis=0)
    assert _middle(updates).tobytes() == wide.tobytes()
