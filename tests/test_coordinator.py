"""A run opens once, goes on anywhere, ends in the same bytes, and refuses what would mix two runs."""

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from fedcore.adapters.trained import TrainedModel
from fedcore.coordinator import STEPS, advance, experiment_name, finish, open_run, quorum, records, simulate
from fedcore.errors import BadInput, BudgetSpent, CorruptState, Diverged, RunBusy, RunConflict
from fedcore.ledger import entries
from fedcore.store import Store
from fedcore.types import Reply

PRIVATE = (
    "privacy.mode=central",
    "combine.weights=equal",
    "privacy.delta=0.01",
    "privacy.noise=seeded",
    "privacy.noise_multiplier=2.0",
    "privacy.epsilon=50",
)


def everything(workdir: Path, run: str = "a") -> dict[str, str]:
    """Digests of all that a run leaves that must not depend on how it went: models, records, ledger."""
    folder = workdir / "runs" / run
    models = [*sorted((folder / "model").iterdir()), *sorted((folder / "clients").rglob("r*"))]
    files = [*models, folder / "records.jsonl", folder / "plan.json"]
    found = {str(f.relative_to(workdir)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
    with Store.at(workdir) as store:
        told = [{k: e[k] for k in ("account", "kind", "run", "round", "body")} for e in entries(store)]
        found["ledger"] = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    return found


def test_a_run_learns_and_leaves_model_records_and_pictures(workdir, settings):
    seen = []
    result = simulate(settings(), workdir, "a", progress=seen.append)
    assert [record.round for record in seen] == [0, 1, 2]
    assert result.metrics["accuracy"] == seen[-1].metrics["accuracy"] > 0.5
    assert result.stopped == "all rounds done"
    assert result.epsilon is None
    trained = TrainedModel.load(result.model_dir)
    assert hashlib.sha256(trained.vector.tobytes()).hexdigest() == result.model_sha256
    assert trained.predict({"x": np.zeros((2, 8, 8), np.float32)}).shape == (2, 10)
    assert {path.name for path in (workdir / "runs/a/report").glob("*.png")} >= {"quality.png", "loss.png"}
    lines = (workdir / "runs/a/records.jsonl").read_text().splitlines()
    assert [json.loads(line)["round"] for line in lines] == [0, 1, 2]


def test_running_it_again_changes_nothing(workdir, settings):
    first = simulate(settings(), workdir, "a")
    before = everything(workdir)
    assert simulate(settings(), workdir, "a") == first
    assert everything(workdir) == before


@pytest.mark.parametrize(
    "overrides", [(), PRIVATE, ("local.algorithm=feddyn",)], ids=["plain", "private", "feddyn"]
)
def test_step_by_step_ends_in_the_bytes_of_the_whole(new_workdir, settings, overrides):
    whole, stepped = new_workdir("whole"), new_workdir("stepped")
    simulate(settings(*overrides), whole, "a")
    open_run(settings(*overrides), stepped, "a")
    for number in range(3):
        for step in STEPS:
            facts = advance(stepped, "a", number, step)
        again = advance(stepped, "a", number, "record")
        assert facts == again
        assert facts["done"] == (number == 2)
    finish(stepped, "a")
    assert everything(whole) == everything(stepped)


def test_worker_processes_give_the_bytes_of_one_process(new_workdir, settings):
    serial, parallel = new_workdir("serial"), new_workdir("parallel")
    simulate(settings(), serial, "a")
    simulate(settings("run.workers=2"), parallel, "a")
    assert everything(serial) == everything(parallel)


def test_skipping_ahead_does_the_steps_before(workdir, settings):
    open_run(settings(), workdir, "a")
    assert advance(workdir, "a", 0, "judge")["verdict"] == "keep"
    assert quorum(workdir, "a", 0) == {"replied": 4, "needed": 2, "met": True}
    assert quorum(workdir, "a", 1) == {"replied": 0, "needed": None, "met": False}
    with pytest.raises(BadInput, match="round 0 of run a is not complete"):
        advance(workdir, "a", 1, "select")
    with pytest.raises(BadInput, match="unknown step 'jugde'"):
        advance(workdir, "a", 0, "jugde")
    with pytest.raises(BadInput, match="round must be 0 or more"):
        advance(workdir, "a", -1, "select")
    with pytest.raises(BadInput, match="no run 'b'.*known runs: a"):
        advance(workdir, "b", 0, "select")


def test_a_name_taken_by_other_settings_is_refused_naming_the_key(workdir, settings):
    open_run(settings(), workdir, "a")
    with pytest.raises(RunConflict, match=r"local\.lr was 0\.1, now 0\.2"):
        open_run(settings("local.lr=0.2"), workdir, "a")
    assert open_run(settings("run.rounds=5"), workdir, "a").rounds == 5


def test_a_longer_run_goes_on_from_a_shorter_one(new_workdir, settings):
    long, extended = new_workdir("long"), new_workdir("extended")
    simulate(settings("run.rounds=4"), long, "a")
    simulate(settings("run.rounds=2"), extended, "a")
    simulate(settings("run.rounds=4"), extended, "a")
    assert everything(long) == everything(extended)


def test_two_processes_cannot_run_the_same_name_at_once(workdir, settings):
    open_run(settings(), workdir, "a")
    with Store.at(workdir) as store, store.lock("a"), pytest.raises(RunBusy):
        simulate(settings(), workdir, "a")


def test_a_spent_budget_ends_training_with_the_last_good_model(workdir, settings):
    config = settings(*PRIVATE, "privacy.epsilon=4", "run.rounds=50")
    result = simulate(config, workdir, "a")
    assert 0 < result.rounds < 50
    assert result.epsilon is not None
    assert result.epsilon <= 4
    assert result.stopped == "privacy budget spent: one more round would exceed ε = 4"
    assert result.model_dir.is_dir()
    with pytest.raises(BudgetSpent):
        simulate(config, workdir, "b")


def test_a_private_run_draws_fresh_noise_from_the_system(new_workdir, settings):
    models = []
    for name in ("one", "two"):
        place = new_workdir(name)
        models.append(simulate(settings(*PRIVATE, "privacy.noise=system"), place, "a").model_sha256)
    assert models[0] != models[1]


def test_a_site_whose_file_breaks_after_the_checks_is_refused_and_the_round_goes_on(workdir, settings):
    open_run(settings(), workdir, "a")
    broken = next((workdir / "data/sites/client-001").iterdir())
    broken.write_bytes(b"garbage")
    result = simulate(settings(), workdir, "a")
    assert result.rounds == 3
    for record in records(workdir, "a"):
        assert list(record.refused) == ["client-001"]
        assert "client-001" in record.refused["client-001"]


def test_clients_that_all_diverge_end_the_run_in_a_sentence(workdir, settings):
    with pytest.raises(Diverged, match="4 of 4 clients of round 1 have no finite update; kept the initial"):
        simulate(settings("local.lr=1e30"), workdir, "a")
    assert not (workdir / "runs/a/model").exists()


def test_a_run_whose_journal_is_damaged_is_named(workdir, settings):
    simulate(settings(), workdir, "a")
    blob = next((workdir / "blobs/a/r00002").glob("release*"))
    blob.write_bytes(b"")
    with pytest.raises(CorruptState, match="release"):
        finish(workdir, "a")


def test_equal_experiments_have_equal_names(workdir, settings):
    checks = workdir / "data/checks/checks.json"
    assert experiment_name(settings(), checks) == experiment_name(settings(), checks)
    assert experiment_name(settings("local.lr=0.3"), checks) != experiment_name(settings(), checks)


def test_a_worse_model_is_rolled_back(workdir, settings):
    result = simulate(
        settings("evaluate.rollback_factor=1.0000001", "local.lr=3.0", "run.rounds=4"), workdir, "a"
    )
    verdicts = [record.verdict for record in records(workdir, "a")]
    assert "rollback" in verdicts
    kept = [r for r in records(workdir, "a") if r.verdict == "keep"]
    assert result.model_sha256 == kept[-1].model_sha256


def crash_after(events: int) -> None:
    """Kill this process, as the system would, at its `events`-th touch of a file or database."""
    left = [events]

    def watch(event: str, _: object) -> None:
        if event in ("open", "os.rename", "os.link", "os.remove", "os.mkdir", "sqlite3.connect"):
            left[0] -= 1
            if left[0] <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def run_and_die(workdir: Path, config: object, events: int) -> bool:
    """Whether a run in a process of its own was killed at that event (False: it finished)."""
    child = os.fork()
    if child == 0:
        try:
            crash_after(events)
            simulate(config, workdir, "a")  # type: ignore[arg-type]
            os._exit(0)
        except BaseException:
            os._exit(3)
    status = os.waitpid(child, 0)[1]
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0, "the run failed by itself"
    return os.WIFSIGNALED(status)


@pytest.mark.no_cover  # what it does over and over other tests run once, and tracing makes it four times as slow
@pytest.mark.parametrize(
    "overrides",
    [
        (),
        PRIVATE,
        ("local.algorithm=scaffold",),
        ("personal.algorithm=ditto",),
        pytest.param(("local.algorithm=feddyn",), marks=pytest.mark.slow),
    ],
    ids=["plain", "private", "scaffold", "ditto", "feddyn"],
)
def test_killed_at_every_touch_of_the_disk_it_ends_in_the_same_bytes(new_workdir, settings, overrides):
    config = settings(*overrides, "run.rounds=2")
    calm = new_workdir("calm")
    simulate(config, calm, "a")
    wild, kills, step = new_workdir("wild"), 0, 7
    while run_and_die(wild, config, step):
        kills += 1
        step += 5  # each life goes a little further than the one before, so every phase is hit
    assert kills > 5
    assert everything(wild) == everything(calm)
    assert not list(wild.rglob("*.part"))


def test_a_reply_is_kept_once_even_if_it_differs(workdir, settings):
    open_run(settings(), workdir, "a")
    advance(workdir, "a", 0, "ask")
    with Store.at(workdir) as store:
        journal = store.journal("a", 0)
        client = next(iter(journal.replies()))
        before = journal.replies()[client].vector
        journal.keep(Reply(client, {}, np.zeros(3, np.float32)))
        after = store.journal("a", 0).replies()[client].vector
    assert before is not None
    assert after is not None
    np.testing.assert_array_equal(before, after)


def test_another_data_set_in_the_same_place_does_not_touch_a_run(workdir, settings):
    first = simulate(settings(), workdir, "a")
    before = everything(workdir)
    other = settings("data.partition.clients=3", "data.partition.scheme=iid")
    assert simulate(other, workdir, "b").rounds == 3
    assert simulate(settings(), workdir, "a") == first
    assert everything(workdir) == before


def test_a_run_whose_data_were_replaced_is_refused(workdir, settings):
    simulate(settings(), workdir, "a")
    schema = workdir / "data/sites/schema.json"
    schema.write_text(schema.read_text().replace('"digits"', '"others"'))
    with pytest.raises(CorruptState, match="started on other data"):
        finish(workdir, "a")
