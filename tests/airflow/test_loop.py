"""From a form to a device, task by task, on a real small training: open, simulate, promote, roll out, watch.

One training is done for the whole file; MLflow is the database of its work directory.
"""

import asyncio
import json
import shutil
import time
from pathlib import Path

import pytest

from fedcore import coordinator, registry
from fedcore.config import load_config
from fedcore.errors import BadInput, BundleRefused, GateRefused

pytest.importorskip("airflow")
from airflow.sdk.exceptions import AirflowSkipException, TaskAwaitingInput, TaskDeferred

from fedcore.airflow.hook import FedcoreHook
from fedcore.airflow.links import MlflowRunLink
from fedcore.airflow.monitoring import LookOperator, RetrainOperator
from fedcore.airflow.promotion import ApproveOperator, FinishOperator, PromoteOperator, RegisterOperator
from fedcore.airflow.rollout import ExportOperator, PublishOperator, WaitForDeviceOperator
from fedcore.airflow.training import CheckSitesOperator, OpenRunOperator, SimulateOperator, run_name
from fedcore.airflow.triggers import AliasTrigger, DeviceTrigger
from fedcore.edge.keys import make_keys
from fedcore.services import Options, down, up

ROOT = Path(__file__).parents[2]
SET = ["run.rounds=3", "data.partition.clients=4", "model.hidden=[8]", "local.epochs=1", "promotion.gates=[]"]
FORM = {"preset": "digits", "settings": json.dumps(SET)}


def config_of(*overrides: str):
    return load_config(ROOT / "params.yaml", preset="digits", overrides=[*SET, *overrides])


@pytest.fixture(scope="module")
def _trained(_prepared, tmp_path_factory):
    """A work directory with a finished, tracked training of three rounds."""
    place = tmp_path_factory.mktemp("loop") / "runs"
    shutil.copytree(_prepared, place)
    coordinator.simulate(
        config_of(), place, "small", place / "data" / "sites", place / "data" / "checks" / "checks.json"
    )
    return place


@pytest.fixture
def reopened(place):
    """Opens the run again with other settings of promotion, and with the old ones at the end."""

    def reopen(*overrides: str) -> None:
        coordinator.open_run(config_of(*overrides), place, "small", place / "data" / "sites")

    yield reopen
    reopen()


@pytest.fixture
def place(_trained, connect, tmp_path, root):
    """The work directory, whose connection names the digits' parameters and an edge folder."""
    params = tmp_path / "params.yaml"
    text = (root / "params" / "digits.yaml").read_text()
    params.write_text("\n".join(line for line in text.splitlines() if not line.startswith("promotion")))
    with params.open("a") as out:
        out.write(
            "\npromotion: {model: digits, gates: []}\nmonitor: {metric: accuracy}\nedge: {max_latency_ms: 500}\n"
        )
    make_keys(tmp_path / "edge" / "keys")
    connect(_trained, params=params, edge=tmp_path / "edge")
    return _trained


def register(place) -> dict:
    return RegisterOperator(task_id="register", fed_run="small").execute({})


def test_checking_then_opening_gives_the_run_of_the_form(workdir, connect):
    connect(workdir, sites=workdir / "data" / "sites")
    form = {**FORM, "fed_run": "mine", "sites": "", "checks": ""}
    checked = CheckSitesOperator(task_id="check", **form).execute({})
    assert checked["passing"] == 4
    assert checked["left_out"] == {}
    form |= {"sites": checked["sites"], "checks": checked["checks"]}
    opened = OpenRunOperator(task_id="open", **form).execute({})
    assert opened == {"run": "mine", "clients": 4, "left_out": {}, "rounds": 3}
    assert OpenRunOperator(task_id="open", **form).execute({}) == opened


def test_without_sites_the_data_of_the_parameters_are_prepared(workdir, connect):
    connect(workdir)
    checked = CheckSitesOperator(task_id="check", **FORM, fed_run="mine", sites="", checks="").execute({})
    assert checked["sites"] == str(workdir / "data" / "sites")
    again = CheckSitesOperator(
        task_id="check", **FORM, fed_run="mine", sites=checked["sites"], checks=checked["checks"]
    )
    assert again.execute({}) == checked


def test_simulating_in_one_task_is_the_same_training(place):
    task = SimulateOperator(
        task_id="simulate",
        **FORM,
        fed_run="small",
        sites=str(place / "data" / "sites"),
        checks=str(place / "data" / "checks" / "checks.json"),
    )
    facts = task.execute({})
    assert facts["run"] == "small"
    assert facts["rounds"] == 3
    assert facts["model_sha256"] == coordinator.records(place, "small")[-1].model_sha256
    assert MlflowRunLink().get_link(task, ti_key=None) == "", "there is no server to link to"


def test_finishing_and_registering_twice_is_doing_it_once(place):
    folder = FinishOperator(task_id="finish", fed_run="small").execute({})
    assert folder == str(coordinator.model_folder(place, "small"))
    first = register(place)
    assert register(place) == first
    assert first["model"] == "digits"
    assert first["metrics"]["accuracy"] > 0


def test_a_promotion_a_rollout_and_a_look(place, tmp_path):
    version = register(place)["version"]
    promoted = PromoteOperator(task_id="promote", fed_run="small", version=str(version)).execute({})
    assert promoted["version"] == version
    exported = ExportOperator(task_id="export").execute({})
    assert exported["version"] == version
    assert exported["max_difference"] < 1e-4
    publish = PublishOperator(task_id="publish", bundle=exported["folder"], version=str(version))
    assert publish.execute({})["changed"]
    assert not publish.execute({})["changed"]
    verdict = LookOperator(task_id="look", newer=str(place / "data" / "sites")).execute({})
    assert verdict["version"] == version
    assert verdict["retraining"].startswith(f"retrain-v{version}-")
    assert {one: verdict[one] for one in ("action", "reasons")} == {"action": "ok", "reasons": []}


def test_a_gate_that_refuses_is_the_sentence_of_the_task(place, reopened):
    reopened("promotion.model=digits-hard", "promotion.gates=[{metric: accuracy, min: 1.1}]")
    version = register(place)["version"]
    with pytest.raises(GateRefused, match=r"gate accuracy: value .*, limit min 1\.1"):
        PromoteOperator(task_id="promote", fed_run="small", version=str(version)).execute({})
    assert registry.champion(FedcoreHook().place.registry_uri, "digits-hard") is None


def test_nobody_is_asked_where_approval_is_off(place):
    assert ApproveOperator(task_id="approve", fed_run="small").execute({}) is None


def test_a_model_that_is_well_is_not_trained_again():
    task = RetrainOperator(task_id="retrain", verdict=json.dumps({"action": "ok"}))
    with pytest.raises(AirflowSkipException):
        task.execute({})


def test_a_model_that_got_worse_is_trained_again_once_for_the_same_data():
    verdict = {"action": "retrain", "retraining": "retrain-v3-abcd", "newer": "july"}
    task = RetrainOperator(task_id="retrain", verdict=json.dumps(verdict))
    with pytest.raises(BaseException) as raised:  # noqa: PT011  # Airflow's own, and not public
        task.execute({})
    assert raised.value.trigger_dag_id == "federated_training"
    assert raised.value.dag_run_id == "retrain-v3-abcd"
    assert raised.value.conf == {"run": "retrain-v3-abcd", "sites": "july"}
    assert raised.value.skip_when_already_exists


@pytest.mark.parametrize("newer", ["", "not there"])
def test_looking_at_nothing_is_refused(place, newer):
    with pytest.raises(BadInput, match="no folder with newer data"):
        LookOperator(task_id="look", newer=newer).execute({})


def test_waiting_for_a_device_holds_no_worker(place, connect, tmp_path):
    task = WaitForDeviceOperator(task_id="wait", version="2")
    assert task.execute({}) == {}, "there is no device"
    connect(place, device="http://127.0.0.1:9", edge=tmp_path)
    with pytest.raises(TaskDeferred) as deferred:
        task.execute({})
    assert deferred.value.trigger.version == 2
    assert task.resume({}, {"version": 2}) == {"version": 2}
    with pytest.raises(BundleRefused, match=r"serves version 1, not 2, after 120 s \(its last error: bad\)"):
        task.resume({}, {"version": 1, "last_error": "bad"})


def event_of(trigger) -> dict:
    async def one():
        return (await anext(trigger.run())).payload

    return asyncio.run(one())


def test_the_device_trigger_fires_for_the_version_and_at_the_deadline(tmp_path):
    there = up(tmp_path / "demo", Options(services=("edge",), timeout_s=60))
    try:
        assert event_of(DeviceTrigger(there.edge, 1, time.time() - 1))["version"] is None
    finally:
        down(tmp_path / "demo")
    silent = event_of(DeviceTrigger(there.edge, 1, time.time() - 1))
    assert "no edge device answers" in silent["last_error"]
    path, arguments = DeviceTrigger(there.edge, 1, 2.5).serialize()
    assert path == "fedcore.airflow.triggers.DeviceTrigger"
    assert DeviceTrigger(**arguments).serialize() == (path, arguments)


class Shelf(dict):
    """What Airflow keeps for an asset."""

    async def aget(self, key: str) -> object:
        return self.get(key)

    async def aset(self, key: str, value: object) -> None:
        self[key] = value


def test_the_alias_trigger_announces_a_champion_once_even_after_a_restart(place):
    version = register(place)["version"]
    PromoteOperator(task_id="promote", fed_run="small", version=str(version)).execute({})
    shelf = Shelf()

    def trigger() -> AliasTrigger:
        fresh = AliasTrigger(**AliasTrigger(poll_s=0.01).serialize()[1])
        fresh.asset_state_store = shelf
        return fresh

    async def listen() -> dict:
        events = trigger().run()
        heard = (await anext(events)).payload
        for silent in (events, trigger().run()):  # the same one goes on, and one after a restart
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(silent), 0.5)
        return heard

    assert asyncio.run(listen()) == {"model": "digits", "version": str(version)}


def test_a_registry_that_does_not_answer_announces_nothing(place, connect):
    from fedcore.airflow.triggers import champion_of

    connect(place, tracking_uri="http://127.0.0.1:9")
    assert champion_of("fedcore_default") == ("flights-delay", None)


def test_a_connection_without_a_work_directory_is_refused(connect, tmp_path):
    connect(None)
    with pytest.raises(BadInput, match="fedcore_default names no workdir"):
        FedcoreHook().get_conn()
    assert FedcoreHook().test_connection()[0] is False
    connect(tmp_path / "gone")
    assert FedcoreHook().test_connection() == (
        False,
        f"{tmp_path / 'gone'} is not a folder; create it or correct workdir",
    )
    connect(tmp_path)
    assert FedcoreHook().test_connection() == (True, f"work directory {tmp_path}")
    assert "hidden_fields" in FedcoreHook.get_ui_field_behaviour()


def test_what_is_not_there_is_named(place, connect, tmp_path):
    with pytest.raises(BadInput, match="there is no run 'other'"):
        FinishOperator(task_id="finish", fed_run="other").execute({})
    with pytest.raises(BadInput, match="there is no run 'other'"):
        FedcoreHook().run_settings("other")
    with pytest.raises(BadInput, match="round 9 of run small has no cohort yet"):
        FedcoreHook().deadline("small", 9)
    connect(place)
    with pytest.raises(BadInput, match="names no edge folder"):
        PublishOperator(task_id="publish", bundle="x", version="1").execute({})


def test_names_of_runs_come_from_the_form_or_from_airflow():
    assert run_name("mine") == "mine"
    assert run_name("manual__2026-01-01T00:00:00+00:00") == "manual__2026-01-01T00-00-00-00-00"
    assert run_name("../..") == "run"


def test_asking_for_approval_parks_the_task(place, reopened, monkeypatch):
    reopened("promotion.approval=true")
    asked = {}
    monkeypatch.setattr(
        "airflow.providers.standard.operators.hitl.upsert_hitl_detail", lambda **facts: asked.update(facts)
    )

    class Task:
        id = "01a2065b-8b25-7425-b907-4d9ecaae68f1"

    with pytest.raises(TaskAwaitingInput):
        ApproveOperator(task_id="approve", fed_run="small").execute({"task_instance": Task()})
    assert asked["options"] == ["Approve", "Reject"]
