"""Real MLflow on SQLite: its tables take seconds to make, so they are made once and the file is copied."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedcore.adapters.model import ModelSpec, build_model
from fedcore.adapters.trained import TrainedModel
from fedcore.config import TrackingConfig
from fedcore.data.features import describe, merge
from fedcore.data.schema import Categorical, Numeric, Schema
from fedcore.rng import generator
from fedcore.tracking.mlflow import MlflowRun, connect, open_tracking
from fedcore.types import RoundRecord

COHORT = ("AA", "B6", "OO", "UA")


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    connect(f"sqlite:///{path}")
    return path


@pytest.fixture
def workdir(tmp_path: Path, empty_database: Path) -> Path:
    """A work directory whose tracking database has tables and nothing in them."""
    place = tmp_path / "runs"
    place.mkdir()
    shutil.copy(empty_database, place / "mlflow.db")
    return place


@pytest.fixture
def uri(workdir: Path) -> str:
    return f"sqlite:///{workdir}/mlflow.db"


@pytest.fixture
def opened(workdir: Path) -> Callable[..., MlflowRun]:
    """Opens tracking in `workdir`."""

    def opener(run: str = "first", **changes: object) -> MlflowRun:
        given = {
            "config_tree": {"seed": 1, "local": {"lr": 0.1}},
            "tags": {},
            "datasets": [("UA", "a" * 64)],
            "key": "journal-1",
        }
        return open_tracking(TrackingConfig(), workdir, run, **{**given, **changes})  # type: ignore[arg-type]

    return opener


@pytest.fixture
def record() -> Callable[..., RoundRecord]:
    """A round's record with some of its fields changed."""

    def make(number: int = 0, **changes: object) -> RoundRecord:
        facts: dict[str, object] = {
            "run": "first",
            "round": number,
            "cohort": COHORT,
            "replied": COHORT[:3],
            "dropped": COHORT[3:],
            "refused": {},
            "metrics": {"auc": 0.6 + 0.02 * number, "loss": 0.7 - 0.03 * number},
            "client_metrics": {
                "auc_p10": 0.5 + 0.02 * number,
                "auc_p50": 0.6 + 0.02 * number,
                "auc_p90": 0.7,
            },
            "epsilon": None,
            "delta": None,
            "bytes_up": 1000,
            "bytes_down": 4000,
            "update_norm": 0.5,
            "verdict": "keep",
            "model_sha256": f"{number:064x}",
            "seconds": {"ask": 1.5},
            "committed_at": 1_790_000_000.25 + number,
        }
        return RoundRecord(**{**facts, **changes})  # type: ignore[arg-type]

    return make


@pytest.fixture
def rows() -> dict[str, np.ndarray]:
    rng = generator(1, "rows")
    temp = rng.normal(50, 10, 60)
    temp[::7] = np.nan
    return {
        "temp": temp,
        "hour": rng.integers(5, 23, 60).astype(float),
        "origin": np.array(["JFK", "LGA", "EWR"])[rng.integers(0, 3, 60)],
    }


@pytest.fixture
def trained(rows: dict[str, np.ndarray]) -> Callable[..., TrainedModel]:
    """A small model on a table of two numbers and a word, never trained, in either framework."""

    def make(framework: str = "numpy", task: str = "classification", outputs: int = 1) -> TrainedModel:
        classes = tuple(str(i) for i in range(max(outputs, 2))) if task == "classification" else ()
        columns = (Numeric("temp", nullable=True), Numeric("hour"))
        schema = Schema("toy", task, "late", classes, columns, (Categorical("origin"),))  # type: ignore[arg-type]
        features = merge([describe(rows, schema)], schema)
        spec = ModelSpec(framework, "mlp", (4,), None, features.input_shape, outputs, task)
        return TrainedModel(spec, build_model(spec).init(generator(2, "init")), features, schema)

    return make


@pytest.fixture
def pictures() -> TrainedModel:
    """A model on arrays of 4 x 4, three classes."""
    x = generator(3, "x").normal(size=(20, 4, 4))
    schema = Schema("squares", "classification", "label", ("0", "1", "2"), shape=(4, 4))
    features = merge([describe({"x": x}, schema)], schema)
    spec = ModelSpec("numpy", "mlp", (4,), None, (4, 4), 3, "classification")
    return TrainedModel(spec, build_model(spec).init(generator(4, "init")), features, schema)
