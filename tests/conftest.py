"""What many tests share: small real data, prepared once, and the settings of a run on it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from fedcore.processor import choose_kernels  # isort: skip  (before numpy, as in the processes that tests start)
import numpy as np
import pytest
from hypothesis import settings as hypothesis_settings

os.environ.setdefault("DVC_NO_ANALYTICS", "1")
os.environ.setdefault("GX_ANALYTICS_ENABLED", "False")

from fedcore.cli import main
from fedcore.config import Config, load_config
from fedcore.data.prepare import prepare

choose_kernels()
hypothesis_settings.register_profile("fedcore", deadline=None)  # a busy machine is no failure
hypothesis_settings.load_profile("fedcore")
ROOT = Path(__file__).parent.parent
SMALL = (
    "run.rounds=3",
    "data.partition.clients=4",
    "model.hidden=[8]",
    "local.epochs=1",
    "tracking.enabled=false",
    "privacy.max_noise_ratio=1e6",  # a handful of clients: what is tested is not whether they learn
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that may take long begin, in random order otherwise: no process is left alone with one at the end."""

    def allowed(item: pytest.Item) -> float:
        mark = item.get_closest_marker("timeout")
        return float(mark.args[0]) if mark else 0.0

    items.sort(key=allowed, reverse=True)


@pytest.fixture
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture
def fedcore(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command; its exit code, standard output and standard error."""

    def run(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def settings() -> Callable[..., Config]:
    """The digits preset made small, with overrides."""

    def load(*overrides: str, preset: str = "digits") -> Config:
        return load_config(ROOT / "params.yaml", preset=preset, overrides=(*SMALL, *overrides))

    return load


@pytest.fixture(scope="session")
def _prepared(tmp_path_factory: pytest.TempPathFactory, settings: Callable[..., Config]) -> Path:
    """A work directory that holds checked digits of four clients and no run."""
    place = tmp_path_factory.mktemp("digits")
    prepare(settings(), place)
    return place


@pytest.fixture
def workdir(_prepared: Path, tmp_path: Path) -> Path:
    """A fresh copy of a work directory with prepared data."""
    place = tmp_path / "runs"
    shutil.copytree(_prepared, place)
    return place


@pytest.fixture
def new_workdir(_prepared: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Makes fresh copies of a work directory with prepared data, by name."""

    def make(name: str) -> Path:
        return Path(shutil.copytree(_prepared, tmp_path / name))

    return make
