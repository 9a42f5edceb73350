"""Real models, real bundles, real keys: small ones, made once."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fedcore.adapters.model import ModelSpec, build_model
from fedcore.adapters.trained import TrainedModel
from fedcore.config import EdgeConfig
from fedcore.data.features import Columns, describe, merge
from fedcore.data.schema import Categorical, Numeric, Schema
from fedcore.edge.bundle import publish
from fedcore.edge.export import export
from fedcore.edge.keys import make_keys
from fedcore.edge.runtime import Device
from fedcore.rng import generator

LIMITS = EdgeConfig(max_latency_ms=1000.0)  # other tests may run beside this one
SCHEMA = Schema(
    "toy",
    "classification",
    "late",
    classes=("0", "1"),
    numeric=(Numeric("distance"), Numeric("wind", nullable=True)),
    categorical=(Categorical("origin"),),
)
TrainedMaker = Callable[..., TrainedModel]


def toy_columns(rows: int, seed: int = 0) -> Columns:
    """Raw rows of the toy schema, some wind missing."""
    rng = generator(seed, "toy rows")
    wind = np.where(rng.random(rows) < 0.2, np.nan, rng.normal(10, 3, rows))
    return {"distance": rng.normal(900, 300, rows), "wind": wind, "origin": rng.choice(["EWR", "JFK"], rows)}


def array_columns(rows: int, shape: tuple[int, ...]) -> Columns:
    """Raw rows of an array set."""
    return {"x": generator(0, "toy arrays").random((rows, *shape)).astype(np.float32)}


@pytest.fixture(scope="session")
def make_trained() -> TrainedMaker:
    """A function that makes a small model; `seed` chooses its parameters."""

    def make(
        seed: int = 1,
        framework: str = "numpy",
        name: str = "mlp",
        outputs: int = 1,
        task: str = "classification",
        shape: tuple[int, ...] = (),
        factory: str | None = None,
    ) -> TrainedModel:
        classes = () if task == "regression" else tuple(str(c) for c in range(max(outputs, 2)))
        schema = Schema("toy", task, "late", classes=classes, shape=shape)  # type: ignore[arg-type]
        if not shape:
            schema = Schema("toy", task, "late", classes, SCHEMA.numeric, SCHEMA.categorical)  # type: ignore[arg-type]
        columns = array_columns(50, shape) if shape else toy_columns(50)
        features = merge([describe(columns, schema)], schema)
        spec = ModelSpec(framework, name, (8, 4), factory, features.input_shape, outputs, task)
        vector = build_model(spec).init(generator(seed, "toy model"))
        return TrainedModel(spec, vector, features, schema)

    return make


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory, make_trained: TrainedMaker) -> dict[int, Path]:
    """Exported bundles of three different models, by version. Not to be changed: see `copy_of`."""
    folder = tmp_path_factory.mktemp("bundles")
    for version in (1, 2, 3):
        export(make_trained(version), folder / str(version), toy_columns(20), LIMITS, name="toy")
    return {version: folder / str(version) for version in (1, 2, 3)}


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of keys."""
    folder = tmp_path_factory.mktemp("signing") / "keys"
    make_keys(folder)
    return folder


@pytest.fixture
def root(keys: Path) -> Path:
    """What devices trust."""
    return keys / "root.json"


@pytest.fixture(scope="session")
def _published(tmp_path_factory: pytest.TempPathFactory, bundles: dict[int, Path], keys: Path) -> Path:
    folder = tmp_path_factory.mktemp("published") / "repo"
    publish(bundles[1], folder, keys, 1)
    return folder


@pytest.fixture
def repo(tmp_path: Path, _published: Path) -> Path:
    """A signed repository in which version 1 is published."""
    return Path(shutil.copytree(_published, tmp_path / "repo"))


@pytest.fixture(scope="session")
def rows() -> list[dict[str, object]]:
    """Raw rows as a request holds them."""
    return [
        {"distance": 700, "wind": 12.5, "origin": "JFK"},
        {"distance": 1200.5, "wind": None, "origin": "a word no site has"},
    ]


@pytest.fixture
def device(tmp_path: Path, repo: Path, root: Path) -> Iterator[Device]:
    """A device that serves version 1."""
    device = Device(tmp_path / "home", repo, root)
    assert device.refresh()
    yield device
    device.close()
