"""Honest clients that differ a little, and a small arena of real digits, opened once."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedcore.config import Config
from fedcore.redteam.trial import Arena, open_arena


@pytest.fixture
def honest() -> np.ndarray:
    """Eight rows (8, 40) around a mean of ones."""
    return (1 + 0.3 * np.random.default_rng(3).standard_normal((8, 40))).astype(np.float32)


@pytest.fixture
def own() -> np.ndarray:
    """What three liars would have sent: rows like the honest."""
    return (1 + 0.3 * np.random.default_rng(4).standard_normal((3, 40))).astype(np.float32)


@pytest.fixture(scope="session")
def small(settings: Callable[..., Config]) -> Config:
    """Ten clients with like data, five rounds."""
    return settings(
        "data.partition.clients=10", "data.partition.scheme=iid", "run.rounds=5", "local.epochs=2"
    )


@pytest.fixture(scope="session")
def arena(small: Config, tmp_path_factory: pytest.TempPathFactory) -> Arena:
    """Three of the ten clients lie."""
    return open_arena(small, Path(tmp_path_factory.mktemp("arena")), 3)
