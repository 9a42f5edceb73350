"""A real MLflow, a real Airflow and a real device: the whole loop, and the loop under SIGKILL.

Both trainings are of the digits, small, with differential privacy whose noise is seeded, so that
an undisturbed run of the library gives the bytes to compare with.
"""

import threading
import time
from pathlib import Path

import psutil
import pytest

from fedcore import coordinator
from fedcore.config import load_config
from fedcore.ledger import entries
from fedcore.rng import generator
from fedcore.store import Store

pytest.importorskip("airflow")
from fedcore.airflow import names
from fedcore.airflow.rest import AirflowApi
from fedcore.edge.health import wait_until_serving
from fedcore.services import Options, down, process, settings, up
from fedcore.services.folder import pids

pytestmark = [pytest.mark.slow, pytest.mark.service, pytest.mark.timeout(900)]
ROUNDS = 4
SET = [
    f"run.rounds={ROUNDS}",
    "data.partition.clients=4",
    "model.hidden=[8]",
    "local.epochs=1",
    "privacy.mode=central",
    "privacy.noise=seeded",
    "privacy.epsilon=1000",
    "privacy.max_noise_ratio=1e6",
    "combine.weights=equal",
]
OPEN = "promotion: {model: digits, gates: []}"


@pytest.fixture
def params(tmp_path: Path, root: Path) -> Path:
    """The digits' parameters with gates that let every model through."""
    lines = (root / "params" / "digits.yaml").read_text().splitlines()
    file = tmp_path / "params.yaml"
    file.write_text("\n".join([*(line for line in lines if not line.startswith("promotion")), OPEN, ""]))
    return file


@pytest.fixture
def folder(tmp_path: Path):
    yield tmp_path / "demo"
    down(tmp_path / "demo")
    assert not [one for one in psutil.process_iter() if str(tmp_path) in " ".join(_words(one))]


@pytest.fixture
def undisturbed(params: Path, tmp_path: Path) -> Path:
    """The work directory of the same training by the library alone."""
    place = tmp_path / "undisturbed"
    config = load_config(params, overrides=[*SET, "tracking.enabled=false"])
    coordinator.simulate(config, place, "mine")
    return place


def begin(folder: Path, params: Path, *groups: str) -> AirflowApi:
    connection = {"params": str(params)}
    there = up(folder, Options(services=groups, connection=connection, timeout_s=400))
    assert there.airflow is not None
    api = AirflowApi(there.airflow, there.airflow_user, settings.password(folder))
    wanted = {names.TRAINING_DAG, names.ROUND_DAG, names.PROMOTION_DAG, names.ROLLOUT_DAG}
    until(lambda: wanted <= set(api.dags()))
    assert api.import_errors() == {}
    for dag in wanted:
        api.unpause(dag)
    return api


def until(condition, seconds: float = 400) -> None:
    clock, end = threading.Event(), time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        clock.wait(0.2)


def state(api: AirflowApi, dag: str, run_id: str) -> str | None:
    return (api.dag_run(dag, run_id) or {}).get("state")


def over(api: AirflowApi, dag: str, run_id: str) -> bool:
    return state(api, dag, run_id) in ("success", "failed")


def bytes_of(place: Path) -> dict[str, object]:
    """What must be the same however often it was killed: model, records, ledger."""
    run = place / "runs" / "mine"
    with Store.at(place) as store:
        spent = [{key: entry[key] for key in ("run", "round", "kind", "body")} for entry in entries(store)]
    return {
        "model": (run / "model" / "model.safetensors").read_bytes(),
        "records": (run / "records.jsonl").read_bytes(),
        "ledger": spent,
    }


def test_from_a_form_to_a_device(folder, params):
    api = begin(folder, params, "mlflow", "airflow", "edge")
    api.trigger(names.TRAINING_DAG, {"run": "mine", "set": SET}, "mine")
    promotion = names.promotion_run_id("mine")
    until(lambda: over(api, names.PROMOTION_DAG, promotion))
    assert state(api, names.PROMOTION_DAG, promotion) == "success"
    rounds = api.dag_runs(names.ROUND_DAG, prefix="mine__")
    assert [run["dag_run_id"] for run in rounds] == [names.round_run_id("mine", n) for n in range(ROUNDS)]
    assert {run["state"] for run in rounds} == {"success"}
    version = api.result(names.PROMOTION_DAG, promotion, "promote")["version"]
    device = up(folder, Options(connection={"params": str(params)})).edge
    assert wait_until_serving(device, version, 200)["version"] == version
    until(
        lambda: (
            [state(api, names.ROLLOUT_DAG, run["dag_run_id"]) for run in api.dag_runs(names.ROLLOUT_DAG)]
            == ["success"]
        )
    )

    api.trigger(names.TRAINING_DAG, {"run": "mine", "set": SET}, "mine-again")
    until(lambda: over(api, names.TRAINING_DAG, "mine-again"))
    assert api.tasks(names.TRAINING_DAG, "mine-again")["first_round"]["state"] == "skipped"
    assert len(api.dag_runs(names.ROUND_DAG, prefix="mine__")) == ROUNDS, "the loop was not forked"

    api.trigger(names.TRAINING_DAG, {"run": "mine", "set": [*SET, "local.lr=0.5"]}, "other-settings")
    until(lambda: over(api, names.TRAINING_DAG, "other-settings"))
    task = api.tasks(names.TRAINING_DAG, "other-settings")["open_run"]
    assert (task["state"], task["try_number"]) == ("failed", 1), "trying again would not change a conflict"
    said = api.log(names.TRAINING_DAG, "other-settings", "open_run", 1)
    assert any("run mine exists with other settings (local.lr was" in line for line in said)


@pytest.mark.chaos
def test_killed_at_three_moments_it_ends_in_the_bytes_of_an_undisturbed_run(folder, params, undisturbed):
    api = begin(folder, params, "airflow")
    api.trigger(names.TRAINING_DAG, {"run": "mine", "set": SET}, "mine")
    moments, clock = generator(20, "airflow kills"), threading.Event()
    for number in range(3):
        begun = names.round_run_id("mine", number)
        until(lambda api=api, begun=begun: state(api, names.ROUND_DAG, begun) is not None)
        clock.wait(float(moments.uniform(0, 3)))
        process.kill(list(process.recorded(pids(folder)).values()))
        assert not any(process.session(one) for one in process.recorded(pids(folder)).values())
        api = begin(folder, params, "airflow")
    promotion = names.promotion_run_id("mine")
    until(lambda: over(api, names.PROMOTION_DAG, promotion))
    assert state(api, names.PROMOTION_DAG, promotion) == "success"
    assert len(api.dag_runs(names.ROUND_DAG, prefix="mine__")) == ROUNDS
    assert bytes_of(folder) == bytes_of(undisturbed)


def _words(one: psutil.Process) -> list[str]:
    try:
        return one.cmdline()
    except psutil.Error:
        return []
