"""Runs on the virtual clock, through the public door: time passes as the devices say, and a kill changes nothing."""

import json

import numpy as np
import pytest

from fedcore.adapters.model import ModelSpec, build_model
from fedcore.config import load_config
from fedcore.coordinator import STEPS, advance, finish, open_run, records, simulate
from fedcore.data.features import Features, Scale
from fedcore.data.schema import Schema
from fedcore.errors import BadConfig, PlanRefused, TooFewClients
from fedcore.pace import batch_sizes
from fedcore.plan import build_plan
from fedcore.session import features_tree, seen
from fedcore.state import Plan, State
from fedcore.store import Store
from fedcore.timing import next_history
from fedcore.tracking.points import points
from fedcore.types import Reply

THREE = (
    "time.mode=virtual",
    "time.classes=[{name: slow, seconds_per_row: 1.0}, {name: quick, seconds_per_row: 0.1, share: 3}]",
)
FAULTS = (
    *THREE,
    "cohort.sampling=oort",
    "cohort.size=2",
    "cohort.over_select=1.5",
    "cohort.min_clients=1",
    "cohort.quorum=0.5",
    "time.dropout=0.2",
    "time.battery={work_s: 400, charge_s: 1000}",
    "time.availability={period_s: 500, windows: [[0, 300]]}",
)
PRIVATE = (
    "privacy.mode=central",
    "combine.weights=equal",
    "privacy.delta=1e-3",
    "privacy.max_noise_ratio=1e6",
)


def plan(*overrides: str) -> Plan:
    schema = Schema("s", "classification", "y", ("0", "1"), shape=(10,))
    features = features_tree(Features((Scale("x", (0.0,) * 10, (1.0,) * 10, (0.0,) * 10),), (), shape=(10,)))
    rows = {f"c{i:03d}": 100 for i in range(40)}
    given = ("model.framework=numpy", "local.algorithm=sgd", "time.mode=virtual", *overrides)
    return build_plan(load_config(overrides=given), rows, schema, features, "r")


def test_the_rounds_of_a_run_last_as_long_as_its_slowest_device(workdir, settings):
    simulate(settings(*THREE), workdir, "a")
    with seen(workdir, "a") as opened:
        slow = max(opened.plan.timing.devices.duration(c, 0, n, 0) for c, n in opened.body["rows"].items())
        told = opened.records()
    assert [record.virtual_s for record in told] == pytest.approx([slow, 2 * slow, 3 * slow])
    assert points(told[1])["virtual_s"] == told[1].virtual_s


def test_a_real_clock_leaves_no_trace_of_another(workdir, settings):
    simulate(settings(), workdir, "a")
    told = records(workdir, "a")[0]
    assert told.virtual_s is None
    assert "virtual" not in told.canonical()
    assert "virtual_s" not in points(told)
    with Store.at(workdir) as store:
        assert "now" not in store.journal("a", 0).kept("record").facts
        assert store.journal("a", 0).kept("record").arrays == {}


def test_faults_leave_replies_out_and_step_by_step_ends_in_the_bytes_of_the_whole(new_workdir, settings):
    config = settings(*FAULTS, "run.rounds=3")
    whole, parts = new_workdir("whole"), new_workdir("parts")
    result = simulate(config, whole, "a")
    open_run(config, parts, "a")
    for number in range(3):
        for step in STEPS:
            advance(parts, "a", number, step)
    finish(parts, "a")
    told = records(whole, "a")
    assert [r.canonical() for r in records(parts, "a")] == [r.canonical() for r in told]
    assert (parts / "runs/a/model/model.safetensors").read_bytes() == (
        result.model_dir / "model.safetensors"
    ).read_bytes()
    assert all(len(record.cohort) == 3 and 1 <= len(record.replied) <= 2 for record in told)
    assert all(a.virtual_s < b.virtual_s for a, b in zip(told, told[1:], strict=False))
    with seen(parts, "a") as opened:
        after = opened.state(3)
    assert after.now == told[-1].virtual_s
    told_losses = after.history.column("loss", 4)
    assert not np.isnan(told_losses[[opened.plan.clients.index(client) for client in told[-1].replied]]).any()
    levels = after.history.column("level", 4)
    assert np.nanmin(levels) < 1
    asked = np.zeros(4)
    for record in told:
        asked += [client in record.cohort for client in opened.plan.clients]
    assert after.history.column("asked", 4, 0.0).tolist() == asked.tolist()


def test_devices_that_are_late_are_not_trained_and_too_few_replies_end_the_run(workdir, settings):
    with pytest.raises(TooFewClients, match="quorum"):
        simulate(settings(*THREE, "cohort.deadline_s=1"), workdir, "a")
    facts = advance(workdir, "a", 0, "ask")
    assert (facts["replied"], facts["schedule"]["ends"], facts["schedule"]["attempts"]) == ([], 10.0, 10)
    assert {visit[-3] for visit in facts["schedule"]["visits"]} == {"late"}


def test_a_class_with_little_memory_trains_with_smaller_batches():
    few = "time.classes=[{name: big}, {name: small, memory_mb: 0.001}]"
    timing = plan(few, "model.name=logistic", "local.batch_size=32").timing
    # 11 parameters in 4 vectors of floats are 176 bytes; a row is 10 features, a score and its gradient: 48 bytes
    assert timing.batches == {"small": 17}
    assert plan(few, "model.name=logistic", "local.batch_size=17").timing.batches == {}
    assert plan(few, "model.name=logistic", "time.row_kb=0.2").timing.batches == {"small": 4}
    sizes = timing.batch_sizes(timing.devices.clients)
    assert len(sizes) == 20


@pytest.mark.parametrize(
    ("name", "shape", "tokens", "numbers"),
    [
        # of one row: its features, then twice (value and gradient) what each layer makes of it
        ("lenet", (28, 28), 0, 784 + 2 * (2 * 6 * 24**2 + 6 * 12**2 + 2 * 16 * 8**2 + 16 * 4**2 + 2 * 120 + 2 * 84 + 10)),
        ("gru", (80,), 90, 80 + 2 * (80 * 16 + 80 * (3 * 128 + 128) + 10)),
    ],
)  # fmt: skip
def test_a_row_takes_what_the_layers_make_of_it(name, shape, tokens, numbers):
    spec = ModelSpec("torch", name, (), None, shape, 10, "classification", tokens=tokens)
    memory = 16 * build_model(spec).layout.size + 3 * 4 * numbers
    for spare, size in ((1, 3), (-1, 2)):
        kind = f"time.classes=[{{name: small, memory_mb: {(memory + spare) / 1e6}}}]"
        assert batch_sizes(load_config(overrides=["local.algorithm=sgd", kind]), spec) == {"small": size}


def test_smaller_batches_change_the_model_of_those_that_take_them(new_workdir, settings):
    kinds = "time.classes=[{{name: a, memory_mb: {}}}, {{name: b}}]"
    digests = {
        simulate(
            settings("time.mode=virtual", kinds.format(mb), "run.rounds=1"), new_workdir(f"w{mb}"), "a"
        ).model_sha256
        for mb in (1000, 0.02)
    }
    plain = simulate(settings("run.rounds=1"), new_workdir("plain"), "a").model_sha256
    assert len(digests) == 2
    assert plain in digests


def test_rows_of_a_round_are_counted_with_its_epochs_or_its_steps():
    assert plan("local.epochs=3").timing.trained("c000") == 300
    assert plan("local.steps=5", "local.batch_size=30").timing.trained("c000") == 130
    assert plan("local.steps=2", "local.batch_size=30").timing.trained("c000") == 60


@pytest.mark.parametrize(
    ("overrides", "error", "words"),
    [
        (
            ("time.mode=real", "time.dropout=0.1"),
            PlanRefused,
            "time.dropout with time.mode real would change nothing",
        ),
        (("time.mode=real", "cohort.over_select=2"), PlanRefused, "nobody would be late"),
        (("cohort.over_select=1.5",), PlanRefused, "would not know how many replies to wait for"),
        (
            ("time.classes=[{memory_mb: 0.0002}]",),
            BadConfig,
            r"training needs 0\.\d+ MB, got .memory_mb 0.0002 of class device",
        ),
        (
            ("time.classes=[{memory_mb: 1}]", "model.factory=a:b"),
            BadConfig,
            r"time\.row_kb: must say what a row takes while a:b trains on it",
        ),
        (
            ("time.classes=[{memory_mb: 0.001}]", "model.name=logistic", "local.algorithm=scaffold"),
            PlanRefused,
            "the server counts each client's steps",
        ),
        (
            (*PRIVATE, "cohort.sampling=uniform", "cohort.size=4", "cohort.over_select=2"),
            PlanRefused,
            "which no accountant here covers; set cohort.over_select: 1",
        ),
        ((*PRIVATE, "time.battery={}"), PlanRefused, "remove time.battery"),
        ((*PRIVATE, "cohort.sampling=oort"), PlanRefused, "under privacy no loss leaves a client"),
        ((*PRIVATE, "cohort.sampling=fair"), PlanRefused, "how often all clients took part.*one client more"),
        (
            (*PRIVATE, "cohort.sampling=quality"),
            PlanRefused,
            "the rows of all clients.*no accountant here covers",
        ),
        ((*PRIVATE, "cohort.sampling=available"), PlanRefused, "which devices may start"),
        (("time.availability={windows: []}",), BadConfig, r"time\.availability\.windows"),
    ],
)
def test_what_does_not_hold_together_is_refused_in_a_sentence(overrides, error, words):
    with pytest.raises(error, match=words):
        plan(*overrides)


def test_losses_that_are_no_numbers_are_not_remembered():
    remembering = plan("cohort.sampling=oort")
    state = State("r", 0, np.zeros(3, np.float32), {})
    told = ["high", float("nan"), -1.0, float("inf"), 2.5]
    replies = [Reply(f"c{i:03d}", {"loss": loss}) for i, loss in enumerate(told)]
    found = next_history(state, remembering, remembering.clients[:5], replies, None).column("loss", 5)
    assert np.isnan(found[:4]).all()
    assert found[4] == 2.5


def test_record_privacy_keeps_its_batches():
    record = ("privacy.mode=record", "privacy.unit=record", "local.batch_size=64", "model.name=logistic")
    with pytest.raises(PlanRefused, match="accounted for with local.batch_size"):
        plan(*record, "time.classes=[{memory_mb: 0.001}]")


def test_private_rounds_last_their_deadline_and_do_not_show_who_was_in_time(workdir, settings):
    private = (*PRIVATE, "privacy.delta=0.01", "privacy.noise=seeded", "privacy.epsilon=100")
    config = settings(*private, *THREE, "cohort.deadline_s=50", "cohort.sampling=poisson", "cohort.rate=0.5")
    open_run(config, workdir, "a")
    facts = advance(workdir, "a", 0, "ask")
    assert "schedule" not in facts
    simulate(config, workdir, "a")
    told = [json.loads(line) for line in (workdir / "runs/a/records.jsonl").read_text().splitlines()]
    assert [record["virtual_s"] for record in told] == [50.0, 100.0, 150.0]
    assert any(record.dropped for record in records(workdir, "a"))
