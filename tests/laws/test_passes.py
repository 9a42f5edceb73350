"""Passes without a graph are those of autograd to the byte, and a module is lent to one caller at a time."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from fedcore.adapters.model import ModelSpec, Training, build_model
from fedcore.rng import generator

CASES = [(1, "classification"), (4, "classification"), (1, "regression")]
SHAPE = (7, 3)


def spec(outputs: int, task: str, factory: str | None = None, hidden: tuple[int, ...] = (9, 5)) -> ModelSpec:
    return ModelSpec("torch", "mlp", hidden, factory, SHAPE, outputs, task, (0.3, 1.7))


def dense(input_shape: tuple[int, ...], outputs: int) -> torch.nn.Module:
    """The built-in network of `spec`, as anybody would write it."""
    return torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(21, 9),
        torch.nn.ReLU(),
        torch.nn.Linear(9, 5),
        torch.nn.ReLU(),
        torch.nn.Linear(5, outputs),
    )


@pytest.fixture
def own(monkeypatch) -> str:
    import sys

    monkeypatch.setitem(sys.modules, "own_passes", sys.modules[__name__])
    return "own_passes:dense"


def rows(outputs: int, task: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = generator(3, "rows")
    x = rng.normal(size=(n, *SHAPE)).astype(np.float32)
    y = rng.normal(size=n) if task == "regression" else rng.integers(0, max(outputs, 2), n)
    return x, y.astype(np.float32)


@pytest.mark.parametrize(("outputs", "task"), CASES)
@pytest.mark.parametrize("batch", [1, 8, 50])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_built_in_network_trains_to_the_bytes_of_autograd(own, outputs, task, batch, momentum):
    models = [build_model(spec(outputs, task, factory)) for factory in (None, own)]
    x, y = rows(outputs, task, 45)
    start, drawn = models[0].init(generator(1, "init")), generator(4, "terms")
    terms = [drawn.normal(size=start.size).astype(np.float32) * np.float32(0.1) for _ in range(2)]
    mask = (drawn.random(start.size) < 0.7).astype(np.float32)
    for extra in ((), (terms[0], 0.1, terms[1], mask)):
        settings = Training(0.05, momentum, 0.01 if extra else 0.0, 2, batch, *extra)
        trained = [model.train(start, x, y, settings, generator(2, "train")) for model in models]
        assert trained[0][0].tobytes() == trained[1][0].tobytes()
        assert trained[0][1] == trained[1][1]
    assert models[0].scores(start, x).tobytes() == models[1].scores(start, x).tobytes()
    slopes = [model.loss_and_gradient(start, x, y) for model in models]
    assert slopes[0][0] == slopes[1][0]
    np.testing.assert_array_equal(slopes[0][1], slopes[1][1])  # the sign of a zero may differ


def test_one_model_serves_many_threads_at_once(own):
    model, (x, _) = build_model(spec(4, "classification", own)), rows(4, "classification", 300)
    vectors = [model.init(generator(seed, "init")) for seed in range(8)]
    alone = [model.scores(vector, x).tobytes() for vector in vectors]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda vector: model.scores(vector, x).tobytes(), vectors * 20))
    assert together == alone * 20
