"""Asynchronous runs through the public door: synchronous without delay, resumed anywhere, refused where unproven."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedcore.coordinator import STEPS, advance, finish, open_run, records, simulate
from fedcore.errors import BadConfig, CorruptState, PlanRefused, TooFewClients
from fedcore.store import Journal, Store
from fedcore.types import Reply
from fedcore.versions import handed_model

SPEEDS = (
    "time.mode=virtual",
    "time.classes=[{name: fast, share: 3, delay_s: 10}, {name: slow, share: 1, delay_s: 45}]",
)
BUFFERED = ("asynchrony.mode=fedbuff", "asynchrony.buffer=2", "run.rounds=4", *SPEEDS, "local.algorithm=sgd")
MIXED = ("asynchrony.mode=fedasync", "cohort.min_clients=1", "run.rounds=4", *SPEEDS, "local.algorithm=sgd")


def everything(workdir: Path, run: str = "a") -> dict[str, str]:
    folder = workdir / "runs" / run
    files = [*sorted((folder / "model").iterdir()), folder / "records.jsonl"]
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def told(workdir: Path, run: str = "a") -> list[dict]:
    return [json.loads(line) for line in (workdir / "runs" / run / "records.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("cohort", "normalise"), [((), "weights"), (("cohort.sampling=uniform", "cohort.size=3"), "buffer")]
)
def test_without_delay_a_buffer_of_the_cohort_is_the_synchronous_run_to_the_byte(
    new_workdir, settings, cohort, normalise
):
    """All the records say but how stale nobody was: also who was asked, every metric and the model's digest."""
    one, other = new_workdir("one"), new_workdir("other")
    plain = ("local.algorithm=sgd", "time.mode=virtual", *cohort)
    waits = simulate(settings(*plain), one, "a")
    size = 3 if cohort else 4
    overlap = (f"asynchrony.buffer={size}", f"asynchrony.normalise={normalise}", "asynchrony.mode=fedbuff")
    flows = simulate(settings(*plain, *overlap), other, "a")
    assert flows.model_sha256 == waits.model_sha256
    stale = [record.pop("asynchrony") for record in told(other)]
    without = [{k: v for k, v in record.items() if k != "asynchrony"} for record in told(other)]
    assert without == told(one)
    assert {record["staleness_max"] for record in stale} == {0.0}
    assert {record["rate"] for record in stale} == {1.0}


def test_one_client_mixed_in_whole_is_the_synchronous_run_to_the_byte(new_workdir, settings):
    one, other = new_workdir("one"), new_workdir("other")
    alone = (
        "time.mode=virtual",
        "local.algorithm=sgd",
        "cohort.min_clients=1",
        "cohort.sampling=uniform",
        "cohort.size=1",
    )
    waits = simulate(settings(*alone), one, "a")
    flows = simulate(settings(*alone, "asynchrony.mode=fedasync", "asynchrony.alpha=1"), other, "a")
    assert flows.model_sha256 == waits.model_sha256


def test_a_run_without_asynchrony_says_nothing_of_it(workdir, settings):
    simulate(settings("run.rounds=1"), workdir, "a")
    assert "asynchrony" not in told(workdir)[0]


def test_fast_clients_do_not_wait_and_every_version_says_how_stale_it_was(workdir, settings):
    result = simulate(settings(*BUFFERED), workdir, "a")
    assert result.metrics["accuracy"] > 0.5
    stale = [record["asynchrony"] for record in told(workdir)]
    times = [record["virtual_s"] for record in told(workdir)]
    assert times == sorted(times)
    assert times[-1] < 4 * 45
    assert max(record["staleness_max"] for record in stale) >= 1
    assert all(0 < record["rate"] <= 1 for record in stale)
    assert min(record["rate"] for record in stale) < 1
    assert all(len(record["replied"]) == 2 for record in told(workdir))


@pytest.mark.parametrize(
    "mode", [pytest.param(BUFFERED, marks=pytest.mark.slow), MIXED], ids=["fedbuff", "fedasync"]
)
def test_steps_one_by_one_with_a_reopened_journal_give_the_bytes_of_one_process(new_workdir, settings, mode):
    calm, steps = new_workdir("calm"), new_workdir("steps")
    simulate(settings(*mode), calm, "a")
    open_run(settings(*mode), steps, "a")
    for number in range(4):
        for step in STEPS:
            advance(steps, "a", number, step)
    finish(steps, "a")
    assert everything(steps) == everything(calm)


@pytest.mark.parametrize(
    "mode",
    [
        (*BUFFERED, "run.rounds=2"),
        pytest.param(BUFFERED, marks=pytest.mark.slow),
        pytest.param(MIXED, marks=pytest.mark.slow),
    ],
    ids=["short", "fedbuff", "fedasync"],
)
def test_a_run_killed_after_any_event_ends_in_the_same_bytes(new_workdir, settings, monkeypatch, mode):
    """Every start of a client, arrival and step is written down by `Store.write`: each is the last once."""
    calm, wild = new_workdir("calm"), new_workdir("wild")
    simulate(settings(*mode), calm, "a")

    class Killed(BaseException):
        pass

    write, kills = Store.write, 0
    seen: set[tuple[int, str]] = set()

    def until_killed(self, run, round_number, step, outcome, seconds):
        write(self, run, round_number, step, outcome, seconds)
        if (round_number, step) not in seen:
            seen.add((round_number, step))
            raise Killed

    monkeypatch.setattr(Store, "write", until_killed)
    while True:
        try:
            simulate(settings(*mode), wild, "a")
            break
        except Killed:
            kills += 1
    assert kills > 2 * len(STEPS)
    assert everything(wild) == everything(calm)


def test_arrivals_in_another_order_give_the_same_bytes(new_workdir, settings, monkeypatch):
    one, other = new_workdir("one"), new_workdir("other")
    simulate(settings(*BUFFERED), one, "a")
    from fedcore.simulation import SerialFleet

    ask = SerialFleet.ask
    monkeypatch.setattr(
        SerialFleet, "ask", lambda self, task, clients: reversed(list(ask(self, task, clients)))
    )
    simulate(settings(*BUFFERED), other, "a")
    assert everything(other) == everything(one)


@pytest.mark.slow
def test_worker_processes_give_the_same_bytes(new_workdir, settings):
    one, other = new_workdir("one"), new_workdir("other")
    simulate(settings(*BUFFERED), one, "a")
    simulate(settings(*BUFFERED, "run.workers=2"), other, "a")
    assert everything(other) == everything(one)


def test_a_second_update_of_a_client_never_counts(workdir, settings, monkeypatch):
    """Each client answers twice, the second time with poison."""
    from fedcore.simulation import SerialFleet

    calm = records_of(workdir, settings(*BUFFERED), "calm")
    ask = SerialFleet.ask

    def twice(self, task, clients):
        for reply in ask(self, task, clients):
            yield reply
            if task.kind == "train":
                yield Reply(
                    reply.client, {}, np.full_like(reply.vector, 1e6), None, task.round, task.model_sha256
                )

    monkeypatch.setattr(SerialFleet, "ask", twice)
    poisoned = records_of(workdir, settings(*BUFFERED), "calm2")
    assert [r.model_sha256 for r in poisoned] == [r.model_sha256 for r in calm]
    assert any("answered twice" in why for record in poisoned for why in record.unusual.values())


def records_of(workdir, config, run):
    simulate(config, workdir, run)
    return records(workdir, run)


def test_what_a_client_claims_of_its_version_is_checked_not_believed(workdir, settings, monkeypatch):
    from fedcore.simulation import SerialFleet

    ask = SerialFleet.ask

    def fresher(self, task, clients):
        for reply in ask(self, task, clients):
            lies = task.kind == "train" and reply.client == self.clients[-1]
            yield replace(reply, round=task.round + 1) if lies else reply

    monkeypatch.setattr(SerialFleet, "ask", fresher)
    found = records_of(workdir, settings(*BUFFERED, "cohort.quorum=0.1", "cohort.min_clients=1"), "a")
    reasons = {why for record in found for why in record.refused.values()}
    assert any("the update is of round" in why for why in reasons)


def test_updates_of_too_old_a_model_are_refused_and_recorded(workdir, settings):
    found = records_of(workdir, settings(*BUFFERED, "asynchrony.max_staleness=1", "run.rounds=9"), "a")
    late = [record for record in found if record.asynchrony["late"]]
    assert late
    assert all("asynchrony.max_staleness is 1" in why for record in late for why in record.refused.values())
    assert max(record.asynchrony["staleness_max"] for record in found) <= 1


def test_lost_devices_are_recorded_as_dropped(workdir, settings):
    lossy = (*BUFFERED, "time.dropout=0.4", "cohort.deadline_s=20", "run.rounds=9")
    found = records_of(workdir, settings(*lossy), "a")
    assert any(record.dropped for record in found)
    assert all(len(record.replied) >= 2 for record in found)


def test_a_robust_rule_works_on_a_full_buffer(workdir, settings):
    robust = ("combine.rule=median", "combine.f=1", "asynchrony.buffer=3")
    found = records_of(workdir, settings(*BUFFERED, *robust), "a")
    assert found[-1].metrics["accuracy"] > 0.4


def test_privacy_of_single_updates_goes_on_and_shows_nobody(workdir, settings):
    private = ("privacy.mode=local", "combine.weights=equal", "privacy.noise=seeded", "privacy.delta=0.01",
               "privacy.epsilon=1000", "privacy.noise_multiplier=8")  # fmt: skip
    open_run(settings(*BUFFERED, *private), workdir, "a")
    shown = advance(workdir, "a", 0, "select")
    assert not {"began", "handed", "late", "course", "cohort"} & set(shown)
    simulate(settings(*BUFFERED, *private), workdir, "a")
    found = records(workdir, "a")
    assert found[-1].epsilon > found[0].epsilon > 0


def test_an_older_model_that_is_gone_is_named(workdir, settings):
    simulate(settings(*BUFFERED), workdir, "a")
    with Store.at(workdir) as store:
        journal = Journal(store, "a", 3)
        assert handed_model(journal, 2).dtype == np.float32
        with pytest.raises(CorruptState, match="version 99"):
            handed_model(journal, 99)
        with pytest.raises(CorruptState, match="version 0"):
            handed_model(journal, 0)  # FedBuff never needs it, so it was not kept


@pytest.mark.parametrize(
    ("overrides", "error", "words"),
    [
        (("privacy.mode=central", "combine.weights=equal", "privacy.delta=0.01"), PlanRefused, "privacy.mode central"),
        (("local.algorithm=scaffold",), PlanRefused, "local.algorithm scaffold"),
        (("personal.algorithm=ditto",), PlanRefused, "personal.algorithm ditto"),
        (("asynchrony.normalise=weights", "combine.rule=median", "combine.f=0"), PlanRefused, "normalise weights"),
        (("asynchrony.mode=fedasync",), PlanRefused, "cohort.min_clients"),
        (("combine.rule=median", "combine.f=1"), PlanRefused, "needs 3"),
        (("time.battery.work_s=10",), PlanRefused, "time.battery"),
        (("time.mode=real", "time.classes=[{}]"), PlanRefused, "time.mode real"),
        (("cohort.sampling=uniform", "cohort.size=2", "cohort.over_select=2"), PlanRefused, "cohort.over_select 2"),
        (("cohort.sampling=poisson",), PlanRefused, "cohort.sampling poisson"),
        (("cohort.sampling=uniform", "cohort.size=2", "asynchrony.concurrency=2"), PlanRefused, "concurrency 2"),
        (("asynchrony.buffer=5",), TooFewClients, "at least 5 clients, got 4"),
        (("asynchrony.participations=1", "asynchrony.window=3"), TooFewClients, "at least 6 clients"),
        (("asynchrony.mode=sometimes",), BadConfig, "asynchrony.mode"),
    ],
)  # fmt: skip
def test_what_is_not_proven_or_cannot_work_is_refused_in_a_sentence(
    workdir, settings, overrides, error, words
):
    with pytest.raises(error, match=words):
        open_run(settings(*BUFFERED, *overrides), workdir, "a")
