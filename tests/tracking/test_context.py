"""Tags from the surroundings, in a real git repository."""

import subprocess
from pathlib import Path

import pytest

import fedcore
from fedcore.tracking.context import surroundings


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    _git(tmp_path, "init", "-q")
    _commit(tmp_path, "dvc.lock", "schema: '2.0'")
    return tmp_path


def _git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    done = subprocess.run(
        ["git", *who, "-C", str(folder), *words], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def _commit(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    _git(folder, "add", name)
    _git(folder, "commit", "-q", "-m", name)
    return _git(folder, "rev-parse", "HEAD")


def test_the_dvc_revision_is_the_commit_that_last_changed_the_lock(repository):
    locked = _git(repository, "rev-parse", "HEAD")
    newest = _commit(repository, "other.txt", "x")
    tags = surroundings(repository, {})
    assert tags["git.commit"] == tags["mlflow.source.git.commit"] == newest
    assert tags["dvc.rev"] == locked != newest


def test_a_lock_that_was_never_committed_says_so(repository):
    _git(repository, "rm", "-q", "dvc.lock")
    _git(repository, "commit", "-q", "-m", "gone", "--allow-empty")
    _git(repository, "checkout", "-q", "--orphan", "fresh")
    _commit(repository, "readme", "x")
    (repository / "dvc.lock").write_text("{}")
    assert surroundings(repository, {})["dvc.rev"] == "uncommitted"


def test_outside_of_everything_only_the_version_is_known(tmp_path):
    assert surroundings(tmp_path, {}) == {"fedcore.version": fedcore.__version__}


def test_without_git_only_the_version_is_known(repository, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert surroundings(repository, {}) == {"fedcore.version": fedcore.__version__}


def test_the_airflow_task_around_us_becomes_tags(tmp_path):
    around = {
        "AIRFLOW_CTX_DAG_ID": "federated_round",
        "AIRFLOW_CTX_DAG_RUN_ID": "x__r0003",
        "AIRFLOW_CTX_TRY_NUMBER": "2",
    }
    tags = surroundings(tmp_path, around)
    assert tags["airflow.dag_id"] == "federated_round"
    assert (tags["airflow.dag_run_id"], tags["airflow.try_number"]) == ("x__r0003", "2")


def test_the_plugin_gives_the_same_tags_to_mlflows_own_api():
    from fedcore.tracking.mlflow_plugin import FedcoreContext

    provider = FedcoreContext()
    assert provider.in_context()
    assert provider.tags() == surroundings()
