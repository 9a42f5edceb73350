"""Personalised runs through the public door: what is kept, what is sent, what is measured, what is refused."""

import json
import shutil

import numpy as np
import pytest

from fedcore.config import load_config
from fedcore.coordinator import advance, finish, open_run, records, simulate
from fedcore.data.features import Features, Scale
from fedcore.data.schema import Schema
from fedcore.errors import BadConfig, CorruptState, PlanRefused, StorageError
from fedcore.local.client import Client
from fedcore.local.heads import head_of
from fedcore.local.kept import keep, kept_before
from fedcore.local.metrics import measure, summarize
from fedcore.plan import build_plan
from fedcore.privacy.leaves import leaves
from fedcore.redteam.trial import arena_at
from fedcore.session import seen
from fedcore.simulation import SoftmaxFleet
from fedcore.types import Reply, Task

PRIVATE = ("privacy.delta=0.01", "privacy.noise=seeded", "privacy.epsilon=1000", "combine.weights=equal")
LATER = ("per_fedavg", "reptile")


def options(algorithm: str) -> tuple[str, ...]:
    return (
        f"personal.algorithm={algorithm}",
        *(["personal.finetune_steps=5", "personal.inner_lr=0.3"] if algorithm in LATER else []),
    )


@pytest.mark.parametrize(
    "algorithm", ["ditto", "mr_mtl", "apfl", "fedper", "fedrep", "per_fedavg", "reptile"]
)
def test_each_run_measures_the_model_of_all_and_the_clients_own(workdir, settings, algorithm):
    result = simulate(settings(*options(algorithm), "run.rounds=2"), workdir, "a")
    last = records(workdir, "a")[-1]
    assert {"accuracy", "loss", "personal_accuracy", "personal_loss"} <= result.metrics.keys()
    assert result.metrics["accuracy"] != result.metrics["personal_accuracy"] > 0.2
    for name in ("accuracy", "personal_accuracy"):
        spread = [last.client_metrics[f"{name}_p{p}"] for p in range(10, 100, 10)]
        assert spread == sorted(spread)
        assert last.client_metrics[f"{name}_worst_decile"] <= spread[0]
    kept = sorted((workdir / "runs/a/clients").glob("*/*"))
    assert {file.name for file in kept} == (
        set() if algorithm in LATER else {"r00000.safetensors", "r00001.safetensors"}
    )
    assert len({file.parent for file in kept}) in (0, 4)


def test_fine_tuning_measures_fedavg_before_and_after_and_changes_nothing_else(new_workdir, settings):
    plain, tuned = new_workdir("plain"), new_workdir("tuned")
    before = simulate(settings("run.rounds=2"), plain, "a")
    after = simulate(
        settings("run.rounds=2", "personal.finetune_steps=5", "personal.inner_lr=0.1"), tuned, "a"
    )
    assert after.model_sha256 == before.model_sha256
    assert before.metrics.items() <= after.metrics.items()
    assert after.metrics["personal_accuracy"] > after.metrics["accuracy"]


def test_worker_processes_keep_the_same_bytes(new_workdir, settings):
    config = settings(*options("fedrep"), "run.rounds=2", "cohort.sampling=uniform", "cohort.size=2")
    serial, parallel = new_workdir("serial"), new_workdir("parallel")
    simulate(config, serial, "a")
    simulate(
        settings(
            *options("fedrep"), "run.rounds=2", "cohort.sampling=uniform", "cohort.size=2", "run.workers=2"
        ),
        parallel,
        "a",
    )
    files = sorted((serial / "runs/a/clients").rglob("r*"))
    assert 2 <= len(files) <= 4
    for file in [*files, serial / "runs/a/records.jsonl"]:
        assert file.read_bytes() == (parallel / file.relative_to(serial)).read_bytes()


def test_a_round_that_is_done_again_starts_from_what_was_kept_before_it(new_workdir, settings):
    """Killed after all clients had kept their models and before the journal knew: the round is asked again."""
    calm, wild = new_workdir("calm"), new_workdir("wild")
    config = settings(*options("apfl"), "personal.adaptive=true")
    simulate(config, calm, "a")
    open_run(config, wild, "a")
    advance(wild, "a", 0, "record")
    advance(wild, "a", 1, "record")
    shutil.copytree(wild, wild.with_name("before"))
    advance(wild, "a", 2, "record")
    shutil.copytree(wild / "runs/a/clients", wild.with_name("before") / "runs/a/clients", dirs_exist_ok=True)
    wild = wild.with_name("before")
    advance(wild, "a", 2, "record")
    finish(wild, "a")
    for file in [*(calm / "runs/a/clients").rglob("r*"), calm / "runs/a/records.jsonl"]:
        assert file.read_bytes() == (wild / file.relative_to(calm)).read_bytes()


def test_no_reply_holds_anything_of_the_head(workdir, settings):
    config = settings(*options("fedper"))
    open_run(config, workdir, "a")
    with seen(workdir, "a") as opened:
        state, features = opened.state(0), opened.plan.features
        names = opened.plan.clients
        layout = opened.trained().model.layout
    client = Client(names[0], workdir / "data/sites", config, workdir / "own")
    reply = client.answer(Task("train", "a", 0, state.model, features))
    head = head_of(layout, 1)
    assert reply.vector is not None
    assert not reply.vector[head].any()
    assert set(reply.facts) == {"loss", "seconds"}
    kept = kept_before(workdir / "own" / names[0], 1)["head"]
    assert not np.array_equal(kept, state.model[head])
    assert (workdir / "own" / names[0] / "r00000.safetensors").stat().st_mode & 0o077 == 0


def test_two_versions_are_kept_and_a_round_sees_only_older_ones(tmp_path):
    folder = tmp_path / "c"
    assert kept_before(folder, 0) == {}
    for number in (0, 3, 7, 100_000):
        keep(folder, number, {"model": np.full(2, number, np.float32)})
    assert sorted(f.name for f in folder.iterdir()) == ["r00007.safetensors", "r100000.safetensors"]
    assert kept_before(folder, 100_000)["model"][0] == 7
    assert kept_before(folder, 100_001)["model"][0] == 100_000
    with pytest.raises(CorruptState, match="later rounds than 5 alone.*put this folder back"):
        kept_before(folder, 5)
    keep(folder, 8, {"model": np.zeros(2, np.float32)})
    assert sorted(f.name for f in folder.iterdir()) == ["r00007.safetensors", "r00008.safetensors"]


def test_what_cannot_be_read_or_written_is_named(tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c/r00001.safetensors").write_bytes(b"nothing")
    with pytest.raises(CorruptState, match="r00001.safetensors cannot be read"):
        kept_before(tmp_path / "c", 2)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot write to .*/file/c"):
        keep(tmp_path / "file" / "c", 0, {"model": np.zeros(1)})


def test_an_own_model_that_diverges_is_refused_and_not_kept(workdir, settings):
    config = settings(*options("ditto"), "personal.lr=1e30", "personal.lam=0")
    open_run(config, workdir, "a")
    with seen(workdir, "a") as opened:
        task = Task("train", "a", 0, opened.state(0).model, opened.plan.features)
        name = opened.plan.clients[0]
    with np.errstate(all="ignore"):
        reply = Client(name, workdir / "data/sites", config, workdir / "own").answer(task)
    assert "its own model is not finite; lower personal.lr" in str(reply.error)
    assert not (workdir / "own").exists()


@pytest.mark.parametrize("mode", ["central", "local"])
def test_under_privacy_only_the_update_leaves_and_the_own_model_still_learns(workdir, settings, mode):
    config = settings(*options("ditto"), *PRIVATE, f"privacy.mode={mode}", "run.rounds=2")
    result = simulate(config, workdir, "a")
    assert result.epsilon is not None
    assert result.metrics["personal_accuracy"] > result.metrics["accuracy"]
    with seen(workdir, "a") as opened:
        task = Task("train", "a", 2, opened.state(2).model, opened.plan.features)
        facts = [reply.facts for reply in opened.fleet.ask(task, opened.plan.clients)]
    assert facts == [{}] * 4


def test_dittos_update_under_record_privacy_is_that_of_dp_sgd(new_workdir, settings):
    record = (
        *PRIVATE,
        "privacy.mode=record",
        "privacy.unit=record",
        "run.rounds=2",
        "privacy.delta=0.001",
    )
    alone, own = new_workdir("alone"), new_workdir("own")
    plain = simulate(settings(*record), alone, "a")
    personal = simulate(settings(*record, *options("ditto")), own, "a")
    assert personal.model_sha256 == plain.model_sha256
    assert personal.epsilon == plain.epsilon


def test_under_record_privacy_mr_mtl_sends_its_own_model_which_is_dp_sgds(new_workdir, settings):
    """Without a pull each client is alone with DP-SGD; with one it costs the same and ends nearer the others."""
    record = (*PRIVATE, "privacy.mode=record", "privacy.unit=record", "run.rounds=3", "privacy.delta=0.001")
    spread, spent = {}, set()
    for lam in (0, 50):
        place = new_workdir(f"pull-{lam}")
        spent.add(simulate(settings(*record, *options("mr_mtl"), f"personal.lam={lam}"), place, "a").epsilon)
        own = [kept_before(folder, 3)["model"] for folder in sorted((place / "runs/a/clients").iterdir())]
        with seen(place, "a") as opened:
            np.testing.assert_allclose(np.mean(own, axis=0), opened.state(3).model, atol=1e-6)
        spread[lam] = np.std(own, axis=0).mean()
    spent.add(simulate(settings(*record), new_workdir("plain"), "a").epsilon)
    assert len(spent) == 1
    assert spread[50] < 0.8 * spread[0]


def test_what_leaves_says_that_own_models_do_not_and_that_their_evaluation_does(settings):
    said = {item.what: item for item in leaves(settings(*options("ditto"), *PRIVATE, "privacy.mode=central"))}
    assert said["what the client keeps for itself between rounds (personal.algorithm: ditto)"].goes is None
    judged = next(item for what, item in said.items() if "and of the client's own model" in what)
    assert judged.covered is False
    plain = [item.what for item in leaves(settings())]
    assert not any("own model" in what or "keeps" in what for what in plain)


ROWS = {f"c{i}": 20 for i in range(40)}
SCHEMA = Schema("s", "classification", "y", ("0", "1"), shape=(2,))


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (("personal.algorithm=fedrep", "local.algorithm=scaffold"), "fedrep takes local steps of its own"),
        (("personal.algorithm=apfl", "local.algorithm=scaffold"), "apfl takes local steps of its own"),
        (("personal.algorithm=reptile",), "nobody would; set personal.finetune_steps"),
        (("personal.algorithm=ditto", "personal.finetune_steps=3"), "not fine-tuned; remove"),
        (("personal.algorithm=fedper", "privacy.mode=central", "combine.weights=equal"), "noise would fall on the head"),
        (("personal.algorithm=apfl", "privacy.mode=record", "privacy.unit=record"), "steps without noise"),
        (("personal.algorithm=mr_mtl", "privacy.mode=record", "personal.epochs=9"), "counts local.epochs"),
        (("personal.algorithm=fedper", "model.name=logistic"), "personal.head 1 of a model with 1 layers"),
        (("personal.algorithm=fedrep", "personal.head=3"), "personal.head 3 of a model with 3 layers"),
    ],
)  # fmt: skip
def test_what_cannot_hold_is_refused_before_anyone_is_asked(overrides, why):
    scale = Scale("x", (0.0, 0.0), (1.0, 1.0), (0.0, 0.0))
    features = json.loads(Features((scale,), (), (2,)).to_json()) if "a model with" in why else {}
    with pytest.raises(PlanRefused, match=why):
        build_plan(load_config(overrides=("local.algorithm=sgd", *overrides)), ROWS, SCHEMA, features, "r")


def test_unknown_algorithms_and_options_are_refused_by_path():
    with pytest.raises(BadConfig, match=r"personal\.algorithm.*got 'dito'"):
        load_config(overrides=["personal.algorithm=dito"])
    with pytest.raises(BadConfig, match=r"personal\.alpha"):
        load_config(overrides=["personal.alpha=1.5"])


def test_fleets_that_train_one_model_for_all_refuse_own_ones(workdir, settings):
    config = settings(*options("ditto"), "model.name=logistic", "model.hidden=[]", "local.batch_size=5000")
    with pytest.raises(PlanRefused, match="a trial under attack trains one model for all"):
        arena_at(config, workdir / "data/sites", (), 0)
    open_run(config, workdir, "a")
    with seen(workdir, "a") as opened:
        spec, fleet = opened.trained().spec, opened.fleet
        assert fleet.clients
    with pytest.raises(PlanRefused, match="all clients at once trains one model for all"):
        SoftmaxFleet({}, spec, config)


def test_regression_metrics_of_own_models_keep_their_direction(rng):
    y = rng.normal(size=(20, 30)).astype(np.float32)
    noise = rng.normal(size=(20, 30)).astype(np.float32) * np.arange(20, dtype=np.float32)[:, None]
    replies = []
    for i in range(20):
        facts = {
            **measure(y[i] + 2 * noise[i], y[i], "regression"),
            "personal": measure(y[i] + noise[i], y[i], "regression"),
        }
        replies.append(Reply(f"c{i}", facts))
    metrics, spread = summarize(replies, "regression")
    assert metrics["personal_mse"] == pytest.approx(metrics["mse"] / 4, rel=1e-3)
    assert spread["personal_mse_worst_decile"] >= spread["personal_mse_p90"]
    assert spread["personal_r2_worst_decile"] <= spread["personal_r2_p10"]
