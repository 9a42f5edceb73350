"""Keras and MLX models by import path, held to what torch modules are: see `test_adapters` for those."""

import random
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from fedcore.adapters.model import ModelSpec, Training, build_model
from fedcore.errors import BadConfig
from fedcore.rng import generator

FRAMEWORKS = [name for name in ("mlx", "tensorflow") if find_spec(name)]


def mlx_net(input_shape, outputs):
    from mlx import nn

    first = [nn.Linear(input_shape[0], 8), nn.ReLU(), nn.Dropout(0.3)]
    return nn.Sequential(*first, nn.LayerNorm(8), nn.Linear(8, outputs))


def mlx_normed(input_shape, outputs):
    from mlx import nn

    return nn.Sequential(nn.BatchNorm(input_shape[0]), nn.Linear(input_shape[0], outputs))


def mlx_wide(input_shape, outputs):
    from mlx import nn

    return nn.Linear(input_shape[0] + 1, outputs)


def mlx_two(input_shape, outputs):
    from mlx import nn

    return nn.Linear(input_shape[0], outputs + 1)


def mlx_pair(input_shape, outputs):
    from mlx import nn

    class Pair(nn.Linear):
        def __call__(self, x):
            return super().__call__(x), x

    return Pair(input_shape[0], outputs)


def tensorflow_net(input_shape, outputs):
    import keras

    layers = [keras.layers.Dense(8, activation="relu"), keras.layers.Dropout(0.3)]
    return keras.Sequential([*layers, keras.layers.LayerNormalization(), keras.layers.Dense(outputs)])


def tensorflow_normed(input_shape, outputs):
    import keras

    return keras.Sequential([keras.layers.BatchNormalization(), keras.layers.Dense(outputs)])


def tensorflow_wide(input_shape, outputs):
    import keras

    return keras.Sequential([keras.Input((input_shape[0] + 1,)), keras.layers.Dense(outputs)])


def tensorflow_two(input_shape, outputs):
    import keras

    return keras.Sequential([keras.layers.Dense(outputs + 1)])


def tensorflow_pair(input_shape, outputs):
    import keras

    rows = keras.Input(input_shape)
    return keras.Model(rows, [keras.layers.Dense(outputs)(rows), rows])


def nothing(input_shape, outputs):
    return 3


@pytest.fixture(params=FRAMEWORKS)
def framework(request, monkeypatch) -> str:
    monkeypatch.setitem(sys.modules, "own_models", sys.modules[__name__])
    return request.param


def made(framework: str, factory: str, outputs: int = 3):
    return build_model(
        ModelSpec(framework, "mlp", (), f"own_models:{factory}", (4,), outputs, "classification")
    )


def rows(n: int = 20) -> tuple[np.ndarray, np.ndarray]:
    rng = generator(3, "rows")
    return rng.normal(size=(n, 4)).astype(np.float32), rng.integers(0, 3, n).astype(np.float32)


def test_a_model_by_import_path_starts_trains_and_repeats(framework):
    model, (x, y) = made(framework, f"{framework}_net"), rows()
    start = model.init(generator(1, "init"))
    assert start.size == model.layout.size == 4 * 8 + 8 + 16 + 8 * 3 + 3
    assert (
        start.tobytes()
        == model.init(generator(1, "init")).tobytes()
        != model.init(generator(2, "i")).tobytes()
    )
    settings = Training(lr=0.1, momentum=0.5, weight_decay=0.0, epochs=20, batch_size=8)
    runs = [model.train(start, x, y, settings, generator(2, "train")) for _ in range(2)]
    assert runs[0][0].tobytes() == runs[1][0].tobytes()
    again = made(framework, f"{framework}_net").train(start, x, y, settings, generator(2, "train"))[0]
    assert again.tobytes() == runs[0][0].tobytes()
    scores = model.scores(start, x), model.scores(runs[0][0], x)
    chosen = [np.log(part[np.arange(20), y.astype(int)]).mean() for part in scores]
    assert chosen[1] > chosen[0] + 0.2
    np.testing.assert_allclose(scores[0].sum(axis=1), 1, rtol=1e-5)


def test_generators_of_others_stay_where_they_were(framework):
    model, (x, y) = made(framework, f"{framework}_net"), rows()
    python, numpy = random.getstate(), np.random.get_state()[1].copy()
    start = model.init(generator(1, "init"))
    model.train(start, x, y, Training(0.1, 0.0, 0.0, 1, 8), generator(2, "train"))
    assert random.getstate() == python
    np.testing.assert_array_equal(np.random.get_state()[1], numpy)


def test_clipped_rows_are_those_of_each_row_alone(framework):
    model, (x, y) = made(framework, f"{framework}_net"), rows(5)
    vector = model.init(generator(1, "init"))
    clipped = model.clipped_sum(vector, x, y, 0.01, generator(4, "clip"))
    assert 0 < np.linalg.norm(clipped) <= 0.05
    assert not model.clipped_sum(vector, x[:0], y[:0], 0.01, generator(4, "clip")).any()


@pytest.mark.parametrize(
    ("factory", "why"),
    [
        ("{}_normed", "not trained .such as batch norm's., which averaging would lose"),
        ("{}_wide", r"fails on rows of shape \(4,\) .*it was built for \(4,\)"),
        ("{}_two", r"must return shape \(2, 3\), returns \(2, 4\)"),
        ("{}_pair", r"must return shape \(2, 3\), returns a (list|tuple)"),
        ("nothing", "must return an? .*, returned int"),
    ],
)
def test_a_model_that_cannot_work_is_refused_in_a_sentence_before_anyone_trains(framework, factory, why):
    with pytest.raises(BadConfig, match=why):
        made(framework, factory.format(framework)).init(generator(1, "init"))
