"""What Airflow adds to a round: wall time minus the library's own, beside a DAG of as many empty tasks.

    python benchmarks/orchestration.py --rounds 8 --json orchestration.json

Both DAGs run on the same scheduler in the same run of the benchmark, the empty one before and
after the rounds. The library's own time is what each task reports as ``seconds``: the one call
into fedcore that it makes. Services start in a folder of their own and are stopped at the end.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fedcore import services
from fedcore.airflow.names import PROMOTION_DAG, ROUND_DAG, promotion_run_id, round_run_id
from fedcore.airflow.rest import AirflowApi
from fedcore.services import settings

REPOSITORY = Path(__file__).parents[1]
EMPTY_DAG = """
from airflow.sdk import chain, dag, task

@dag(schedule=None)
def empty():
    @task
    def nothing():
        pass

    chain(*[nothing.override(task_id=f"task_{i}")() for i in range(7)])

empty()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--preset", default="digits")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    asked = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory(prefix="orchestration-") as name:
        folder = Path(name)
        try:
            facts = measure(
                folder, asked.rounds, asked.preset, asked.set, lambda line: console.print(line, style="dim")
            )
        finally:
            services.down(folder)
    console.print(table(facts))
    if asked.json:
        asked.json.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def measure(
    folder: Path, rounds: int, preset: str, extra: list[str], say: Callable[[str], None]
) -> dict[str, Any]:
    """Seconds of every round and every empty run, with versions and machine."""
    dags = folder / "dags"
    shutil.copytree(REPOSITORY / "dags", dags, ignore=shutil.ignore_patterns("__pycache__"))
    (dags / "empty_dag.py").write_text(EMPTY_DAG, encoding="utf-8")
    options = services.Options(
        services=("mlflow", "airflow"), dags=dags, connection={"params": str(REPOSITORY / "params.yaml")}
    )
    endpoints = services.up(folder, options, say)
    assert endpoints.airflow is not None
    api = AirflowApi(endpoints.airflow, endpoints.airflow_user, settings.password(folder))
    until(lambda: {"empty", "federated_training", ROUND_DAG, PROMOTION_DAG} <= set(api.dags()), 120)
    for dag in api.dags():
        api.unpause(dag)
    empty(api, "warm", say)
    train(api, "warm", ["run.rounds=1", *extra], preset, 1, say)
    before = [empty(api, f"before-{i}", say) for i in range(rounds // 2 + 1)]
    measured = train(api, "measured", [f"run.rounds={rounds}", *extra], preset, rounds, say)
    after = [empty(api, f"after-{i}", say) for i in range(rounds // 2 + 1)]
    return summary(measured, before + after)


def empty(api: AirflowApi, name: str, say: Callable[[str], None]) -> float:
    """Seconds of one run of the DAG of empty tasks."""
    seconds = duration(finished(api, "empty", api.trigger("empty", {}, name)))
    say(f"empty {name}: {seconds:.2f} s")
    return seconds


def train(
    api: AirflowApi, run: str, overrides: list[str], preset: str, rounds: int, say: Callable[[str], None]
) -> list[dict[str, float]]:
    """Wall seconds and library seconds of each round of one training."""
    api.trigger("federated_training", {"run": run, "preset": preset, "set": overrides}, run)
    finished(api, "federated_training", run)
    found = []
    for number in range(rounds):
        round_id = round_run_id(run, number)
        facts = finished(api, ROUND_DAG, round_id)
        tasks = api.tasks(ROUND_DAG, round_id)
        library = sum((api.result(ROUND_DAG, round_id, task) or {}).get("seconds", 0.0) for task in tasks)
        start = moment(facts["start_date"])
        found.append({"start": start, "wall": duration(facts), "library": library})
        say(f"round {number}: {duration(facts):.2f} s, of which fedcore {library:.2f} s")
    over(api, PROMOTION_DAG, promotion_run_id(run))
    return found


def summary(rounds: list[dict[str, float]], empties: list[float]) -> dict[str, Any]:
    """Medians, the ratio, and where it was measured."""
    overhead = [one["wall"] - one["library"] for one in rounds]
    starts = [one["start"] for one in rounds]
    return {
        "round_wall_s": statistics.median(one["wall"] for one in rounds),
        "round_library_s": statistics.median(one["library"] for one in rounds),
        "round_overhead_s": statistics.median(overhead),
        "round_to_round_s": statistics.median(b - a for a, b in zip(starts, starts[1:], strict=False)),
        "empty_wall_s": statistics.median(empties),
        "ratio": statistics.median(overhead) / statistics.median(empties),
        "rounds": rounds,
        "empties": empties,
        "versions": {
            name: version(name) for name in ("apache-airflow-core", "mlflow", "torch", "sqlalchemy")
        },
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]},
    }


def table(facts: dict[str, Any]) -> Table:
    """The medians, for people."""
    shown = Table(title="What Airflow adds to a round (medians)", title_justify="left", show_header=False)
    shown.add_row("a round, wall", f"{facts['round_wall_s']:.2f} s")
    shown.add_row("of which fedcore", f"{facts['round_library_s']:.2f} s")
    shown.add_row("orchestration", f"{facts['round_overhead_s']:.2f} s")
    shown.add_row("seven empty tasks, wall", f"{facts['empty_wall_s']:.2f} s")
    shown.add_row("orchestration / empty", f"{facts['ratio']:.2f} (limit 1.5)")
    shown.add_row("from round to round", f"{facts['round_to_round_s']:.2f} s")
    shown.add_row("on", ", ".join(f"{k} {v}" for k, v in {**facts["machine"], **facts["versions"]}.items()))
    return shown


def finished(api: AirflowApi, dag: str, run_id: str) -> dict[str, Any]:
    """Facts of a run once it is over; ends the benchmark when it failed."""
    facts = over(api, dag, run_id)
    if facts["state"] != "success":
        raise SystemExit(f"{dag} {run_id} failed; its task logs say why")
    return facts


def over(api: AirflowApi, dag: str, run_id: str) -> dict[str, Any]:
    """Facts of a run once it is over, whether it succeeded or not."""
    until(lambda: (api.dag_run(dag, run_id) or {}).get("state") in ("success", "failed"), 600)
    return api.dag_run(dag, run_id) or {}


def until(condition: Callable[[], bool], seconds: float) -> None:
    """Ask until it holds; ends the benchmark when that takes too long."""
    clock, end = threading.Event(), time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"it did not happen within {seconds:g} s")
        clock.wait(0.2)


def duration(facts: dict[str, Any]) -> float:
    """Seconds from the start to the end of a run."""
    return moment(facts["end_date"]) - moment(facts["start_date"])


def moment(text: str) -> float:
    """Unix seconds of an ISO date."""
    return datetime.fromisoformat(text).timestamp()


if __name__ == "__main__":
    main()
