"""The compiled training loop of dense networks is the plain one, up to rounding; numba may be missing."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fedcore.adapters import numpy as plain
from fedcore.adapters import numpy_compiled as kernel
from fedcore.adapters.model import ModelSpec, Training, build_model
from fedcore.rng import generator

CASES = [(1, "classification"), (4, "classification"), (1, "regression")]
SHAPE = (7, 3)


def spec(outputs: int, task: str, name: str = "mlp", hidden: tuple[int, ...] = (9, 5)) -> ModelSpec:
    return ModelSpec("numpy", name, hidden, None, SHAPE, outputs, task, (0.3, 1.7))


def rows(outputs: int, task: str, n: int = 45) -> tuple[np.ndarray, np.ndarray]:
    rng = generator(3, "rows")
    x = rng.normal(size=(n, *SHAPE)).astype(np.float32)
    y = rng.normal(size=n) if task == "regression" else rng.integers(0, max(outputs, 2), n)
    return x, y.astype(np.float32)


def settings(size: int, batch: int) -> list[Training]:
    drawn = generator(4, "terms")
    correction, anchor = (np.float32(0.1) * drawn.normal(size=size).astype(np.float32) for _ in range(2))
    mask = (drawn.random(size) < 0.7).astype(np.float32)
    return [
        Training(0.05, 0.0, 0.0, 2, batch),
        Training(0.005, 0.9, 0.01, 3, batch, correction, 0.1, anchor, mask),
        Training(0.05, 0.0, 0.0, 1, batch, proximal=0.2, steps=7),
    ]


@pytest.fixture
def always(monkeypatch):
    monkeypatch.setattr(plain, "PAYS_FROM", 0)


@pytest.mark.parametrize("interpreted", [False, True])
@pytest.mark.parametrize("name", ["mlp", "logistic"])
@pytest.mark.parametrize(("outputs", "task"), CASES)
@pytest.mark.parametrize("batch", [1, 8, 50])
def test_it_trains_as_the_plain_loop_does(outputs, task, name, batch, interpreted, monkeypatch):
    if interpreted:  # the source is what is compiled
        for part in ("product", "weights_at", "shaped", "forward", "slope", "backward", "step", "train"):
            monkeypatch.setattr(kernel, part, getattr(kernel, part).py_func)
    model, (x, y) = build_model(spec(outputs, task, name)), rows(outputs, task)
    start = model.init(generator(1, "init"))
    for given in settings(start.size, batch):
        monkeypatch.setattr(plain, "PAYS_FROM", 2**60)
        expected, facts = model.train(start, x, y, given, generator(2, "train"))
        monkeypatch.setattr(plain, "PAYS_FROM", 0)
        found, told = model.train(start, x, y, given, generator(2, "train"))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-6)
        assert told["loss"] == pytest.approx(facts["loss"], rel=1e-5)
        assert found.dtype == np.float32


@pytest.mark.usefixtures("always")
def test_threads_and_repetition_change_no_byte_and_inputs_stay_as_they_are():
    model, (x, y) = build_model(spec(4, "classification")), rows(4, "classification", 200)
    start, given = model.init(generator(1, "init")), Training(0.05, 0.9, 0.0, 2, 16)
    before = [part.tobytes() for part in (start, x, y)]

    def trained(seed: int) -> bytes:
        return model.train(start, x, y, given, generator(seed, "train"))[0].tobytes()

    alone = [trained(seed) for seed in range(6)]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(trained, list(range(6)) * 5)) == alone * 5
    assert [part.tobytes() for part in (start, x, y)] == before


@pytest.mark.usefixtures("always")
def test_a_label_that_is_no_class_is_never_an_address():
    model, (x, y) = build_model(spec(4, "classification")), rows(4, "classification")
    start, given = model.init(generator(1, "init")), Training(0.05, 0.0, 0.0, 1, 16)
    with pytest.raises(IndexError, match="out of bounds"):
        model.train(start, x, y + 4, given, generator(2, "train"))


@pytest.mark.usefixtures("always")
def test_training_that_diverges_ends_in_numbers_that_are_not_finite():
    model, (x, y) = build_model(spec(4, "classification")), rows(4, "classification")
    start = model.init(generator(1, "init"))
    found, _ = model.train(start, x, y, Training(1e30, 0.0, 0.0, 3, 16), generator(2, "train"))
    assert not np.isfinite(found).all()


def test_only_work_that_pays_imports_the_compiler():
    script = (
        "import sys; import numpy as np; from fedcore.adapters.model import *; from fedcore.rng import generator; "
        "m = build_model(ModelSpec('numpy', 'mlp', (8,), None, (4,), 3, 'classification')); "
        "x, y, v = np.ones((9, 4), np.float32), np.zeros(9, np.float32), m.init(generator(1, 'a')); "
        "m.train(v, x, y, Training(.1, 0., 0., 1, 4), generator(1, 'b')); print('numba' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


@pytest.mark.usefixtures("always")
def test_without_numba_the_plain_loop_trains(monkeypatch):
    monkeypatch.setitem(sys.modules, "fedcore.adapters.numpy_compiled", None)
    monkeypatch.delattr("fedcore.adapters.numpy_compiled", raising=False)
    plain._compiled.cache_clear()
    try:
        assert plain._compiled() is None
        model, (x, y) = build_model(spec(4, "classification")), rows(4, "classification")
        found, _ = model.train(
            model.init(generator(1, "i")), x, y, Training(0.05, 0.0, 0.0, 1, 16), generator(2, "t")
        )
        assert np.isfinite(found).all()
    finally:
        plain._compiled.cache_clear()
