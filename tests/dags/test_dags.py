"""The DAG files: they can be read, reading them is cheap, and they wire what they say."""

import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

pytest.importorskip("airflow")
from airflow.dag_processing.dagbag import DagBag

from fedcore.airflow.info import get_provider_info

DAGS = {
    "edge_rollout",
    "federated_promotion",
    "federated_round",
    "federated_simulation",
    "federated_training",
    "monitoring",
}
PARSE = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
heavy = ("torch", "mlflow", "pandas", "great_expectations", "onnxruntime", "tuf", "sklearn", "matplotlib")
print("FOUND", json.dumps([sorted(bag.dags), bag.import_errors, [name for name in heavy if name in sys.modules]]))
"""


@pytest.fixture(scope="module")
def dags(request):
    bag = DagBag(request.config.rootpath / "dags")
    assert bag.import_errors == {}
    return bag.dags


def test_reading_the_files_loads_nothing_heavy(root):
    done = subprocess.run(
        [sys.executable, "-c", PARSE, str(root / "dags")], capture_output=True, text=True, check=True
    )
    found = next(line for line in done.stdout.splitlines() if line.startswith("FOUND"))
    assert json.loads(found.removeprefix("FOUND ")) == [sorted(DAGS), {}, []]


def test_every_file_holds_one_dag_and_is_named_after_it(root, dags):
    files = {file.name for file in (root / "dags").iterdir() if file.suffix == ".py"}
    assert files == {f"{name}_dag.py" for name in DAGS}
    assert set(dags) == DAGS


def test_a_round_is_the_seven_steps_in_order(dags):
    tasks = [task.task_id for task in dags["federated_round"].topological_sort()]
    assert tasks == ["select", "dispatch", "wait_for_quorum", "admit", "aggregate", "evaluate", "decide"]


def test_the_tasks_of_a_round_take_every_step_of_the_library_once(dags):
    from fedcore.coordinator import STEPS

    taken = [
        step for task in dags["federated_round"].topological_sort() for step in getattr(task, "steps", ())
    ]
    assert (*taken, "record") == STEPS


def test_no_round_begins_before_the_audit_that_was_asked_for(dags):
    dag = dags["federated_training"]
    assert [task.task_id for task in dag.topological_sort()] == [
        "check_sites",
        "open_run",
        "audit",
        "first_round",
    ]
    assert dag.get_task("first_round").upstream_task_ids == {"audit"}
    assert dag.get_task("first_round").trigger_rule == "none_failed", (
        "a failed audit stops it, a skipped one does not"
    )
    for before in ("open_run", "audit"):
        assert dag.get_task(before).trigger_rule == "all_success"
    assert dag.params["audit"] == 0, "an audit costs budget: nobody gets one without asking"


@pytest.mark.parametrize("name", sorted(DAGS))
def test_every_task_is_tried_again_when_that_may_help(dags, name):
    for task in dags[name].tasks:
        assert task.retries == 3
        assert task.retry_delay.total_seconds() == 30
        assert task.retry_policy is not None


def test_only_a_moved_alias_starts_a_rollout(dags):
    [asset] = dags["edge_rollout"].timetable.asset_condition.objects
    assert asset.name == "promoted_model"
    [watcher] = asset.watchers
    assert watcher.trigger.serialize()[0] == "fedcore.airflow.triggers.AliasTrigger"


@pytest.mark.parametrize("name", sorted(DAGS - {"edge_rollout"}))
def test_nothing_else_starts_by_itself(dags, name):
    assert dags[name].schedule is None


def test_airflow_finds_the_provider_by_its_entry_point():
    [entry] = [
        one
        for one in entry_points(group="apache_airflow_provider")
        if one.name == "provider_info" and one.dist is not None and one.dist.name == "fedcore-mlops"
    ]
    assert entry.load() is get_provider_info


def test_the_provider_names_only_what_is_there():
    from importlib import import_module

    info = get_provider_info()
    modules = [
        module
        for kind in ("hooks", "operators", "triggers")
        for part in info[kind]
        for module in part["python-modules"]
    ]
    assert all(import_module(module) for module in modules)
    [connection] = info["connection-types"]
    names = [connection["hook-class-name"], *info["extra-links"]]
    assert all(hasattr(import_module(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in names)


def test_workers_are_forked_from_a_process_that_has_everything():
    import fedcore.airflow.preload  # noqa: F401

    assert {"fedcore.coordinator", "fedcore.adapters.pytorch", "torch", "mlflow"} <= set(sys.modules)


def test_the_files_are_what_airflow_s_own_schema_wants():
    import airflow
    from jsonschema import validate

    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    validate(get_provider_info(), schema)
