"""The main job: the whole loop on real data, from a data version to a prediction on a device.

    python examples/demo.py            (make demo)

MLflow, Airflow and an edge device start in the background, in the folder ``demo``, while DVC
ingests, partitions and checks the flights of 16 airlines. Airflow then trains across them in
rounds, registers and promotes the model, signs it and rolls it out; the device is asked about
flights it has never seen. One table at the end says what that was worth. Nothing is left running
unless asked for with ``--keep``.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from rich.console import Console
from rich.table import Table

from fedcore import services
from fedcore.airflow import names
from fedcore.airflow.rest import AirflowApi
from fedcore.config import Config, load_config
from fedcore.errors import FedcoreError, ServiceError
from fedcore.experiments import Baselines
from fedcore.services import settings

PROJECT = Path(__file__).resolve().parents[1]
SITES, CHECKS = PROJECT / "data" / "sites", PROJECT / "reports" / "checks.json"
DAGS = (names.TRAINING_DAG, names.ROUND_DAG, names.PROMOTION_DAG, names.ROLLOUT_DAG)
WAIT_S = 600.0
SHOWN = ("auc", "accuracy", "loss")
OUT = Console(highlight=False, soft_wrap=True)
BEGIN = time.monotonic()


@dataclass(frozen=True)
class Demo:
    """What every act needs to know."""

    folder: Path
    run: str
    config: Config
    overrides: tuple[str, ...]
    endpoints: services.Endpoints
    api: AirflowApi


def main() -> int:
    """0 when the whole loop worked; otherwise the exit code of what went wrong, after one sentence."""
    asked = _arguments()
    signal.signal(signal.SIGTERM, _interrupt)
    folder = asked.folder.resolve()
    try:
        with _services_and_data(folder, asked) as demo:
            facts = play(demo)
            if asked.json:
                asked.json.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        return 0
    except FedcoreError as error:
        print(f"demo: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("demo: interrupted; everything it started is stopped", file=sys.stderr)
        return 130


def play(demo: Demo) -> dict[str, Any]:
    """Train, promote, roll out, predict, compare; the facts of the last table.

    The models to compare with are trained beside the rounds, in a process that yields to them.
    """
    spare = {"mp_context": get_context("spawn"), "initializer": os.nice, "initargs": (10,)}
    with ProcessPoolExecutor(1, **spare) as beside:  # type: ignore[arg-type]
        opened = begin(demo)
        baselines = beside.submit(fit, demo.folder, demo.run, demo.config)
        rounds = watch(demo, opened)
        promoted = promote(demo)
        health = roll_out(demo, promoted)
        predict(demo)
        say("waiting for the pooled model and each airline's own, to compare with")
        comparison = compare(demo, baselines.result())
    facts = {"rounds": rounds, "promoted": promoted, "device": health, "comparison": comparison}
    show(demo, facts)
    return facts


def begin(demo: Demo) -> dict[str, Any]:
    """Trigger the training and wait until its run is open; who takes part."""
    for dag in DAGS:
        demo.api.unpause(dag)
    conf = {"run": demo.run, "set": list(demo.overrides), "sites": str(SITES), "checks": str(CHECKS)}
    demo.api.trigger(names.TRAINING_DAG, conf, demo.run)
    say(f"triggered {names.TRAINING_DAG}, watch it at {demo.api.grid(names.ROUND_DAG)}")
    opened: dict[str, Any] = task_result(demo, names.TRAINING_DAG, demo.run, "open_run")
    say(f"run {opened['run']} with {opened['clients']} airlines")
    for site, why in opened["left_out"].items():
        say(f"left out {site}: {why}")
    return opened


def watch(demo: Demo, opened: dict[str, Any]) -> list[dict[str, Any]]:
    """Tell of the rounds as they go by; each round's facts."""
    rounds: list[dict[str, Any]] = []
    while not rounds or not rounds[-1]["done"]:
        run_id = names.round_run_id(demo.run, len(rounds))
        rounds.append(task_result(demo, names.ROUND_DAG, run_id, "decide"))
        facts = rounds[-1]
        metrics = [f"{name} {value:.4f}" for name, value in facts["metrics"].items() if name in SHOWN]
        spent = [] if facts["epsilon"] is None else [f"ε {facts['epsilon']:.2f}"]
        say(f"round {len(rounds)} of {opened['rounds']}: {', '.join([*metrics, *spent])}")
    say(f"training is over: {rounds[-1]['stopped']}")
    return rounds


def promote(demo: Demo) -> dict[str, Any]:
    """Wait until the model is registered and champion."""
    run_id = names.promotion_run_id(demo.run)
    registered = task_result(demo, names.PROMOTION_DAG, run_id, "register")
    say(f"registered {registered['model']} version {registered['version']}")
    promoted: dict[str, Any] = task_result(demo, names.PROMOTION_DAG, run_id, "promote")
    gates = "; ".join(f"{gate} {saw}" for gate, saw in promoted["gates"].items()) or "none"
    say(f"version {promoted['version']} is champion (gates: {gates})")
    return promoted


def roll_out(demo: Demo, promoted: dict[str, Any]) -> dict[str, Any]:
    """Wait until the device serves the promoted version."""
    from fedcore.edge.health import wait_until_serving

    assert demo.endpoints.edge is not None
    health = wait_until_serving(demo.endpoints.edge, promoted["version"], WAIT_S)
    say(f"the device verified and serves version {health['version']} (sha256 {str(health['sha256'])[:12]}…)")
    return health


def predict(demo: Demo, count: int = 5) -> None:
    """Ask the device about flights that nobody trained on."""
    from fedcore.data.schema import Schema
    from fedcore.edge.holdout import held_out

    schema, data = Schema.load(SITES), demo.config.data
    columns = held_out(SITES, schema, demo.config.seed, data.test_fraction, per_site=1)
    rows = [{name: _plain(column[i]) for name, column in columns.items()} for i in range(count)]
    scores = _post(f"{demo.endpoints.edge}/predict", {"rows": rows})["scores"]
    for row, score in zip(rows, scores, strict=True):
        words = ", ".join(
            f"{name} {row[name]}"
            for name in ("origin", "dest", "day_of_week", "dep_hour", "distance")
            if name in row
        )
        say(f"device: {words} → late with probability {float(score):.2f}")


def fit(folder: Path, run: str, config: Config) -> Baselines:
    """The pooled model and each airline's own, trained as often and as long as the federated one."""
    from fedcore.coordinator import current_model
    from fedcore.experiments import fit_baselines, passing_sites

    return fit_baselines(current_model(folder, run), SITES, passing_sites(CHECKS, config), config)


def compare(demo: Demo, baselines: Baselines) -> dict[str, Any]:
    """AUC pooled, federated, and of each airline alone, on the same held-out flights."""
    from fedcore.adapters.trained import TrainedModel
    from fedcore.coordinator import model_folder
    from fedcore.experiments import compare_models, draw_comparison

    trained = TrainedModel.load(model_folder(demo.folder, demo.run))
    comparison = compare_models(trained, baselines, SITES, demo.config)
    draw_comparison(comparison, demo.folder / "runs" / demo.run / "report" / "compare.png")
    facts: dict[str, Any] = comparison.to_json()
    return facts


def show(demo: Demo, facts: dict[str, Any]) -> None:
    """The one table, and where everything is."""
    from fedcore.coordinator import records

    comparison, rounds = facts["comparison"], facts["rounds"]
    table = Table(
        title=f"\n{comparison['metric'].upper()} on flights nobody trained on", title_justify="left"
    )
    for column in ("airline", "training rows", "alone", "federated", "gain"):
        table.add_column(column, justify="left" if column == "airline" else "right")
    for site in comparison["sites"]:
        alone, federated = site["alone"], site["federated"]
        gain = "" if alone is None or federated is None else f"{federated - alone:+.3f}"
        table.add_row(site["site"], f"{site['rows']:,}", _number(alone), _number(federated), gain)
    table.add_section()
    table.add_row("all airlines", "", _number(comparison["alone"]), _number(comparison["federated"]), "")
    table.add_row("pooled, for comparison", "", "", _number(comparison["pooled"]), "")
    OUT.print(table)
    epsilon, privacy = rounds[-1]["epsilon"], demo.config.privacy
    guarantee = (
        "off" if epsilon is None else f"ε = {epsilon:.2f} at δ = {privacy.delta:g}, unit: {privacy.unit}"
    )
    told = records(demo.folder, demo.run)
    facts["bytes"] = sum(record.bytes_up + record.bytes_down for record in told)
    user, secret = demo.endpoints.airflow_user, demo.endpoints.airflow_password_file
    OUT.print(f"rounds       {len(rounds)}, with {facts['bytes'] / 1e6:.1f} MB between server and airlines")
    OUT.print(f"privacy      {guarantee}")
    OUT.print(f"MLflow run   {_mlflow_page(demo)}")
    OUT.print(f"Airflow grid {demo.api.grid(names.ROUND_DAG)}  (user {user}, password in {secret})")
    OUT.print(f"pictures     {demo.folder / 'runs' / demo.run / 'report'}")
    OUT.print(f"took         {time.monotonic() - BEGIN:.0f} s")


def say(line: str) -> None:
    """One line of progress with the seconds so far."""
    OUT.print(f"[dim]{time.monotonic() - BEGIN:5.0f} s[/dim]  ", end="")
    OUT.print(line, markup=False)


def task_result(demo: Demo, dag: str, run_id: str, task: str) -> Any:
    """What a task leaves, once it is there. Raises `ServiceError` with the task's last words when its run fails."""
    clock, end = threading.Event(), time.monotonic() + WAIT_S
    while True:
        run = demo.api.dag_run(dag, run_id)
        result = demo.api.result(dag, run_id, task) if run else None
        if result is not None:
            return result
        if run and run["state"] == "failed":
            raise ServiceError(_why(demo.api, dag, run_id))
        if time.monotonic() > end:
            raise ServiceError(f"{dag} {run_id} has no {task} after {WAIT_S:g} s; see {demo.api.grid(dag)}")
        clock.wait(0.3)


def _why(api: AirflowApi, dag: str, run_id: str) -> str:
    """The sentence of the task that failed."""
    for name, task in api.tasks(dag, run_id).items():
        if task["state"] == "failed":
            lines = [line for line in api.log(dag, run_id, name, task["try_number"]) if line.strip()]
            failed = [line for line in lines if line.startswith("Task failed")]
            words = [*lines[-1:], *failed][-1][:300] if lines else "it left no log"
            return f"task {name} of {dag} {run_id} failed: {words}; see {api.grid(dag)}"
    return f"{dag} {run_id} failed; see {api.grid(dag)}"


@contextmanager
def _services_and_data(folder: Path, asked: argparse.Namespace) -> Iterator[Demo]:
    """Services and data, made ready side by side; the services are stopped at the end."""
    overrides = (*asked.set, "promotion.better_than_champion=null", "promotion.approval=false")
    config = load_config(PROJECT / "params.yaml", overrides=overrides)
    try:
        with ThreadPoolExecutor(1) as beside:
            children: list[subprocess.Popen[str]] = []
            data = beside.submit(_data_stages, children)
            try:
                options = services.Options(
                    connection={"params": str(PROJECT / "params.yaml"), "sites": str(SITES)}, timeout_s=WAIT_S
                )
                say(f"starting MLflow, Airflow and an edge device in {folder}")
                endpoints = services.up(folder, options, say)
                assert endpoints.airflow is not None
                api = AirflowApi(endpoints.airflow, endpoints.airflow_user, settings.password(folder))
                _until(lambda: set(DAGS) <= set(api.dags()), "Airflow to read the DAG files")
                data.result()
            except BaseException:
                for child in children:
                    child.terminate()
                raise
        yield Demo(folder, asked.run or time.strftime("demo-%m%d-%H%M%S"), config, overrides, endpoints, api)
    except BaseException:
        stopped = services.down(folder)
        say(f"stopped {', '.join(stopped)}")
        raise
    if not asked.keep:
        say(f"stopped {', '.join(services.down(folder))}")
        again = "make up" if folder == Path("demo").resolve() else f"fedcore up --folder {folder}"
        OUT.print(f"\nBoth pages open again at these addresses with: {again}", markup=False)


def _data_stages(children: list[subprocess.Popen[str]]) -> None:
    """``dvc repro check``: ingest, partition for each airline, check. Tells of each stage."""
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "check"]
    environment = {
        **os.environ,
        **settings.QUIET,
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
    }
    said: list[str] = []
    with subprocess.Popen(
        command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as stages:
        children.append(stages)
        assert stages.stdout is not None
        for line in stages.stdout:
            said.append(line.strip())
            if line.startswith(("Running stage", "Stage", "ERROR")):
                say(f"data: {line.strip()}")
    if stages.returncode:
        last = next((line for line in reversed(said) if line), "it said nothing")
        raise ServiceError(f"dvc repro check failed: {last[:300]}; run it by hand to see more")


def _until(condition: Callable[[], bool], what: str) -> None:
    clock, end = threading.Event(), time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > end:
            raise ServiceError(f"waited {WAIT_S:g} s for {what}; see the logs of the services")
        clock.wait(0.3)


def _post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urlopen(request, timeout=30) as answer:
            facts: dict[str, Any] = json.load(answer)
            return facts
    except URLError as error:
        raise ServiceError(f"{url} does not answer ({error.reason}); see the device's log") from None


def _mlflow_page(demo: Demo) -> str:
    from fedcore.airflow.links import mlflow_run_url
    from fedcore.store import Store

    with Store.at(demo.folder) as store:
        found = store.run(demo.run)
    return mlflow_run_url(demo.endpoints.mlflow, found[1].get("mlflow_run") if found else None)


def _plain(value: Any) -> Any:
    """A cell as JSON has it: missing numbers are null."""
    plain = value.item() if hasattr(value, "item") else value
    return None if plain != plain else plain  # noqa: PLR0124  # NaN


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--folder", type=Path, default=Path("demo"), help="where the services keep everything"
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave the services running; stop them with: fedcore down"
    )
    parser.add_argument("--run", help="name of the run; a new one unless given")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting over params.yaml"
    )
    parser.add_argument("--json", type=Path, help="write the facts of the last table there")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
