"""The MLflow sink on a real database: one run a training, one step a round, twice told is once told."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fedcore.config import TrackingConfig
from fedcore.errors import BadConfig, BadInput, ServiceError, StorageError
from fedcore.tracking.mlflow import address, connect, open_tracking, pick
from fedcore.tracking.mlflow.connect import artifact_root, shown
from fedcore.tracking.points import points


def _history(run, name):
    return [(m.step, m.value, m.timestamp) for m in run.client.get_metric_history(run.run_id, name)]


def test_each_round_is_one_step_with_every_number_of_its_record(opened, record):
    run = opened()
    for number in range(3):
        run(record(number, epsilon=1.0 + number, delta=1e-5))
    for name, value in points(record(1, epsilon=2.0, delta=1e-5)).items():
        assert _history(run, name)[1] == (1, value, 1_790_000_001_250), name
    assert run.client.get_run(run.run_id).data.tags["fed.round"] == "2"


def test_a_round_told_again_changes_nothing(opened, record):
    run = opened()
    run(record(0))
    before = run.client.get_run(run.run_id).to_dictionary()
    opened()(record(0))
    assert run.client.get_run(run.run_id).to_dictionary() == before
    assert len(_history(run, "auc")) == 1


def test_a_resumed_training_goes_on_in_its_run_and_another_one_does_not(opened):
    first = opened()
    first.finish("FAILED")
    again = opened()
    assert again.run_id == first.run_id
    assert again.client.get_run(again.run_id).info.status == "RUNNING"
    assert opened(key="journal-2").run_id != first.run_id != opened("second").run_id


def test_without_a_key_the_work_directory_is_part_of_it(opened, workdir):
    run = opened(key=None)
    assert opened(key=None).run_id == run.run_id
    other = open_tracking(TrackingConfig(uri=run.uri), workdir / "other", "first", {}, {}, [])
    assert other.run_id != run.run_id


def test_parameters_tags_and_inputs_are_there_once(opened):
    long = {"a": {f"k{n}": "x" * 7000 for n in range(120)}}
    pairs = [("UA", "a" * 64), ("AA", "b" * 64)]
    for _ in range(2):
        run = opened(config_tree=long, tags={"dvc.rev": "abc", "airflow.dag_id": "d"}, datasets=pairs)
    found = run.client.get_run(run.run_id)
    assert len(found.data.params) == 120
    assert len(found.data.params["a.k7"]) == 6000
    assert found.data.tags["airflow.dag_id"] == "d"
    assert found.data.tags["fed.run"] == "first"
    inputs = {i.dataset.name: i.dataset for i in found.inputs.dataset_inputs}
    assert sorted(inputs) == ["AA", "UA"]
    assert inputs["UA"].digest == "a" * 36
    assert '"dvc.rev": "abc"' in inputs["UA"].source
    runs = run.client.search_runs([run.experiment_id], f"dataset.digest = '{'b' * 36}'")
    assert [r.info.run_id for r in runs] == [run.run_id]


def test_a_parameter_changed_on_resume_keeps_its_first_value(opened):
    opened(config_tree={"run": {"workers": 0}})
    run = opened(config_tree={"run": {"workers": 2}, "seed": 3})
    assert run.client.get_run(run.run_id).data.params == {"run.workers": "0", "seed": "3"}


def test_plan_guarantee_checks_pictures_and_the_table_of_clients_are_artifacts(opened, record, workdir):
    run = opened()
    run.describe({"rule": "mean"}, "ε ≤ 2 at δ = 1e-05", {"OO": {"passed": False}})
    run.log_records([record(0), record(1)])
    (workdir / "extra").mkdir()
    (workdir / "extra" / "model.onnx").write_bytes(b"x")
    run.log_files(workdir / "extra", "onnx")
    names = {item.path for item in run.client.list_artifacts(run.run_id)}
    assert names == {"plan.json", "guarantee.txt", "checks.json", "report", "onnx"}
    report = {Path(item.path).name for item in run.client.list_artifacts(run.run_id, "report")}
    assert {"quality.png", "clients.png", "cohort.png", "clients.csv"} <= report
    tags = run.client.get_run(run.run_id).data.tags
    assert tags["mlflow.note.content"] == "ε ≤ 2 at δ = 1e-05"
    assert tags["fed.checks"] == "0 of 1 sites passed"
    assert (workdir / "mlartifacts").is_dir()


def test_a_finished_run_says_so(opened):
    run = opened()
    run.finish()
    assert run.client.get_run(run.run_id).info.status == "FINISHED"
    assert run.run_id in run.url
    assert run.url.startswith("mlflow ui --backend-store-uri sqlite:///")


def test_a_deleted_experiment_comes_back(opened):
    run = opened()
    run.client.delete_experiment(run.experiment_id)
    assert opened().experiment_id == run.experiment_id


def test_runs_are_found_by_name_and_by_id(opened):
    one, two = opened("one"), opened("two")
    client, home = one.client, "fedcore"
    assert [r.info.run_id for r in pick(client, home, ["two", one.run_id])] == [two.run_id, one.run_id]
    assert {r.info.run_id for r in pick(client, home)} == {one.run_id, two.run_id}
    with pytest.raises(BadInput, match="unknown run 'tow'; did you mean 'two'"):
        pick(client, home, ["tow"])
    with pytest.raises(BadInput, match="unknown experiment 'else'"):
        pick(client, "else")
    opened("two", key="journal-2")
    with pytest.raises(BadInput, match="2 MLflow runs are named 'two'"):
        pick(client, home, ["two"])


def test_no_server_is_one_sentence_within_seconds(tmp_path):
    uri = "http://127.0.0.1:9"  # the discard port: nobody listens
    with pytest.raises(ServiceError, match=r"no MLflow server answers at http://127\.0\.0\.1:9"):
        open_tracking(TrackingConfig(uri=uri), tmp_path, "first", {}, {}, [])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("uri", ["file:///tmp/mlruns", "mlruns", "databricks"])
def test_an_address_that_mlflow_cannot_serve_us_by_is_refused(uri):
    with pytest.raises(BadConfig, match=r"tracking\.uri"):
        connect(uri)


def test_a_broken_database_is_named_and_left_alone(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StorageError, match=r"mlflow\.db cannot be used"):
        connect(f"sqlite:///{tmp_path}/mlflow.db")
    assert (tmp_path / "mlflow.db").read_bytes().startswith(b"not a database")


def test_a_place_that_is_no_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be used"):
        connect(f"sqlite:///{tmp_path}/file/mlflow.db")


def test_a_database_of_another_mlflow_is_named(workdir, uri):
    with closing(sqlite3.connect(workdir / "mlflow.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = 'long ago'")
        database.commit()
    with pytest.raises(StorageError, match="out-of-date database schema"):
        connect(uri)


def test_an_unknown_run_of_mlflow_is_named(opened, record):
    run = opened()
    run.client.delete_run(run.run_id)
    with pytest.raises(StorageError, match="must be in the 'active' state"):
        run(record(0))


def test_addresses(tmp_path):
    assert address(TrackingConfig(), tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    assert address(TrackingConfig(uri="http://host:5000"), tmp_path) == "http://host:5000"
    assert artifact_root("https://host", tmp_path) is None
    assert artifact_root(f"sqlite:///{tmp_path}/a/m.db", Path("x")) == (tmp_path / "a/mlartifacts").as_uri()
    assert artifact_root("postgresql+psycopg2://h/db", tmp_path) == (tmp_path / "mlartifacts").as_uri()
    assert shown("http://me:secret@host:5000/x") == "http://host:5000/x"
    assert shown("http://host:5000/x") == "http://host:5000/x"
