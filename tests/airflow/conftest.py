"""Airflow in a home of its own, and the connection that its tasks read."""

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

if "AIRFLOW_HOME" not in os.environ:  # before the first import of Airflow, which reads it then
    os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="fedcore-tests-airflow-")
    atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"


class Left(dict):
    """What a task left, as Airflow's task instance would take it."""

    def xcom_push(self, key: str, value: object) -> None:
        self[key] = value


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch, root: Path) -> Callable[..., None]:
    """Sets the connection ``fedcore_default``."""

    def set_connection(workdir: Path | None, **extra: object) -> None:
        facts = {"params": str(root / "params.yaml"), **extra}
        if workdir is not None:
            facts["workdir"] = str(workdir)
        facts = {key: str(value) for key, value in facts.items()}
        text = json.dumps({"conn_type": "fedcore", "extra": facts})
        monkeypatch.setenv("AIRFLOW_CONN_FEDCORE_DEFAULT", text)

    return set_connection


@pytest.fixture
def left() -> Left:
    return Left()
