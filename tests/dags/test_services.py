"""A real MLflow, a real Airflow and a real device: the whole loop, the loop under SIGKILL, and a ledger shared with others.

All trainings are of the digits, small. Those of the loop have differential privacy whose noise is seeded, so
that an undisturbed run of the library gives the bytes to compare with.
"""

import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from fedcore import coordinator
from fedcore.config import load_config
from fedcore.ledger import Entry, entries, verified
from fedcore.privacy.accountant import Account
from fedcore.privacy.events import GaussianSum, event_from_json
from fedcore.rng import generator
from fedcore.session import seen
from fedcore.store import Store
from fedcore.sweep import noise_for

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
SIMULATION_DAG = "federated_simulation"
OPEN = "promotion: {model: digits, gates: []}"


class Stack(NamedTuple):
    """Services of one folder that run: the tests of one module share them, each with runs of its own."""

    folder: Path
    params: Path
    api: AirflowApi


def open_params(place: Path) -> Path:
    """The digits' parameters with gates that let every model through, as a file in `place`."""
    lines = (Path(__file__).parents[2] / "params" / "digits.yaml").read_text().splitlines()
    file = place / "params.yaml"
    file.write_text("\n".join([*(line for line in lines if not line.startswith("promotion")), OPEN, ""]))
    return file


def nothing_is_left(place: Path) -> bool:
    return not [one for one in psutil.process_iter() if str(place) in " ".join(_words(one))]


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    place = tmp_path_factory.mktemp("stack")
    params = open_params(place)
    yield Stack(place / "demo", params, begin(place / "demo", params, "mlflow", "airflow", "edge"))
    down(place / "demo")
    assert nothing_is_left(place)


@pytest.fixture
def params(tmp_path: Path) -> Path:
    return open_params(tmp_path)


@pytest.fixture
def folder(tmp_path: Path):
    yield tmp_path / "demo"
    down(tmp_path / "demo")
    assert nothing_is_left(tmp_path)


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
    wanted = {names.TRAINING_DAG, names.ROUND_DAG, names.PROMOTION_DAG, names.ROLLOUT_DAG, SIMULATION_DAG}
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


def test_from_a_form_to_a_device(stack):
    folder, params, api = stack
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


SHARED = [
    *("data.partition.clients=4", "model.hidden=[8]", "local.epochs=1", "tracking.enabled=false"),
    *("privacy.mode=central", "privacy.noise=system", "privacy.max_noise_ratio=1e6", "combine.weights=equal"),
    *("privacy.population=everyone", "privacy.delta=1e-5"),
]
SIMULATED, SWEPT, FLOWN = 100, 20, 300  # rounds; of Airflow's run so many are affordable beside the others
LOUD, QUIET = GaussianSum(60.0, None), GaussianSum(100.0, None)


def test_a_simulation_an_airflow_run_and_a_sweep_draw_on_one_account_at_once(stack):
    folder, params, api = stack
    cell = noise_for(load_config(params, overrides=[*SHARED, f"run.rounds={SWEPT}"]), 0.7)
    events = {LOUD: SIMULATED, GaussianSum(cell, None): SWEPT, QUIET: FLOWN}
    limit = Account(events).epsilon(1e-5)
    shared = [*SHARED, f"privacy.epsilon={limit}"]
    endless = [*shared, f"privacy.noise_multiplier={QUIET.noise_multiplier}", "run.rounds=100000"]
    api.trigger(SIMULATION_DAG, {"run": "flown", "set": endless}, "flown")
    until(lambda: charges(folder, "flown"))
    others = [
        fedcore(
            "simulate",
            "--run",
            "simulated",
            params,
            folder,
            [*shared, f"run.rounds={SIMULATED}", f"privacy.noise_multiplier={LOUD.noise_multiplier}"],
        ),
        fedcore(
            "privacy",
            "sweep",
            "--epsilons",
            "0.7",
            "--seeds",
            "1",
            params,
            folder,
            [*shared, f"run.rounds={SWEPT}"],
        ),
    ]
    assert [process.wait(300) for process in others] == [0, 0]
    until(lambda: over(api, SIMULATION_DAG, "flown"))

    assert state(api, SIMULATION_DAG, "flown") == "success", (
        "a spent budget ends a training, it does not fail it"
    )
    with seen(folder, "flown") as opened:
        assert (
            opened.stopped(opened.rounds)
            == f"privacy budget spent: one more round would exceed ε = {limit:g}"
        )
    assert (folder / "runs/flown/model/model.safetensors").is_file()
    (sweep,) = {entry.run for entry in paid(folder) if entry.run.startswith("sweep-")}
    spans = {run: charges(folder, run) for run in ("simulated", sweep, "flown")}
    assert (len(spans["simulated"]), len(spans[sweep])) == (SIMULATED, SWEPT), (
        "who came first was not paid twice"
    )
    latest_begin = max(places[0] for places in spans.values())
    assert latest_begin < min(places[-1] for places in spans.values()), "all three drew on it at once"
    together = Counter(event_from_json(entry.body["event"]) for entry in paid(folder))
    assert sum(together.values()) == sum(map(len, spans.values()))
    spent = Account(together).epsilon(1e-5)
    assert spent == pytest.approx(paid(folder)[-1].body["epsilon"], rel=1e-9)
    assert spent <= limit < Account(together).plus(QUIET).epsilon(1e-5), (
        "spent to the last round, and no further"
    )


def fedcore(*words: str | Path | list[str]) -> subprocess.Popen[bytes]:
    """The command line as a process: words, then the parameter file, the work directory and settings."""
    *command, params, folder, settings = words
    options = [word for setting in settings for word in ("--set", setting)]
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from fedcore.cli import main; main()",
            *command,
            "--params",
            str(params),
            "--workdir",
            str(folder),
            *options,
        ]
    )


def paid(folder: Path) -> list[Entry]:
    """The charges of the shared account in their order, the chain verified."""
    with Store.at(folder) as store:
        return [
            one for one in verified(store) if one.kind == "reserve" and one.account.startswith("everyone@")
        ]


def charges(folder: Path, run: str) -> list[int]:
    """Where in the ledger the charges of a run stand."""
    return [entry.sequence for entry in paid(folder) if entry.run == run]


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
