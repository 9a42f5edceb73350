"""The built-in models: what they cost, which rows they take, and that each trains like any other."""

import subprocess
import sys

import numpy as np
import pytest

from fedcore.adapters.architecture import layout, start
from fedcore.adapters.model import ModelSpec, Training, build_model
from fedcore.adapters.zoo import ZOO, cost, layers
from fedcore.errors import BadConfig
from fedcore.rng import generator

TOKENS = 20
SHAPES = [
    ("lenet", (16, 17), 3),
    ("lenet", (3, 20, 18), 1),
    ("lenet", (20, 18, 3), 3),
    ("dwcnn", (8, 8), 3),
    ("dwcnn", (6, 5, 2), 1),
    ("gru", (7,), TOKENS),
    ("lstm", (7,), TOKENS),
]


def spec(name: str, shape: tuple[int, ...], outputs: int, framework: str = "torch") -> ModelSpec:
    tokens = TOKENS if name in ("gru", "lstm") else 0
    return ModelSpec(framework, name, (5,), None, shape, outputs, "classification", tokens=tokens)


def rows(of: ModelSpec, n: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = generator(3, "rows")
    x = (
        rng.integers(of.tokens, size=(n, *of.input_shape))
        if of.tokens
        else rng.normal(size=(n, *of.input_shape))
    )
    return x.astype(np.float32), rng.integers(0, max(of.outputs, 2), n).astype(np.float32)


HAND_COUNTS = {
    # name: parameters, FLOPs of one row forward
    "linear": (784 * 10 + 10, 2 * 784 * 10),
    "logistic": (784 * 10 + 10, 2 * 784 * 10),
    "mlp": (785 * 64 + 65 * 32 + 33 * 10, 2 * (784 * 64 + 64 * 32 + 32 * 10)),
    "lenet": (
        (25 + 1) * 6 + (6 * 25 + 1) * 16 + (256 + 1) * 120 + (120 + 1) * 84 + (84 + 1) * 10,
        2 * (25 * 6 * 24 * 24 + 6 * 25 * 16 * 8 * 8 + 256 * 120 + 120 * 84 + 84 * 10),
    ),
    "dwcnn": (
        9 * 16
        + 2 * 16  # stem at 28 x 28
        + 9 * 16
        + 2 * 16
        + 16 * 32
        + 2 * 32  # 14 x 14
        + 9 * 32
        + 2 * 32
        + 32 * 64
        + 2 * 64  # 7 x 7
        + 9 * 64
        + 2 * 64
        + 64 * 128
        + 2 * 128  # 4 x 4
        + 129 * 10,
        2
        * (
            9 * 16 * 784
            + (9 * 16 + 16 * 32) * 196
            + (9 * 32 + 32 * 64) * 49
            + (9 * 64 + 64 * 128) * 16
            + 1280
        ),
    ),
    "gru": (74 * 16 + 3 * 128 * (16 + 128 + 2) + 129 * 74, 2 * (80 * 3 * 128 * (16 + 128) + 128 * 74)),
    "lstm": (74 * 16 + 4 * 128 * (16 + 128 + 2) + 129 * 74, 2 * (80 * 4 * 128 * (16 + 128) + 128 * 74)),
}


@pytest.mark.parametrize("name", ZOO)
def test_parameters_flops_and_bytes_are_those_counted_by_hand(name):
    counted = cost(name)
    assert (counted.parameters, counted.flops) == HAND_COUNTS[name]
    assert counted.bytes == 4 * counted.parameters < 2_000_000


@pytest.mark.parametrize("name", ["mlp", "lenet", "dwcnn"])
def test_flops_are_those_that_torch_counts(name):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    entry = ZOO[name]
    model = build_model(
        ModelSpec("torch", name, (64, 32), None, entry.typical, entry.outputs, "classification")
    )
    module = model.module(model.init(generator(1, "init")))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.zeros(1, *entry.typical))
    assert counter.get_total_flops() == cost(name).flops


@pytest.mark.parametrize(("name", "shape", "outputs"), SHAPES)
def test_modules_have_the_parameters_of_the_layout_and_start_where_it_says(name, shape, outputs):
    of = spec(name, shape, outputs)
    model = build_model(of)
    vector = model.init(generator(1, "init"))
    assert vector.tobytes() == start(layers(of), generator(1, "init")).tobytes()
    parts = [tuple(part.shape) for part in model.module(vector).parameters()]
    assert parts == list(model.layout.shapes) == list(layout(layers(of)).shapes)


def test_a_start_is_uniform_within_one_over_the_root_of_the_inputs():
    of = spec("dwcnn", (8, 8), 3)
    parts = layout(layers(of)).split(start(layers(of), generator(1, "init")))
    pointwise = parts["4.weight"]  # 16 channels in, 32 out
    assert pointwise.shape == (32, 16, 1, 1)
    assert 0.24 < np.abs(pointwise).max() <= 0.25
    assert (parts["1.weight"] == 1).all()
    assert (parts["1.bias"] == 0).all()


@pytest.mark.parametrize(("name", "shape", "outputs"), SHAPES)
def test_training_repeats_lowers_the_loss_and_leaves_its_inputs_alone(name, shape, outputs):
    of = spec(name, shape, outputs)
    model, (x, y) = build_model(of), rows(of)
    vector = model.init(generator(1, "init"))
    before = (vector.copy(), x.copy(), y.copy())
    settings = Training(lr=0.05, momentum=0.9, weight_decay=0.0, epochs=12, batch_size=6)
    first, second = (model.train(vector, x, y, settings, generator(2, "train"))[0] for _ in range(2))
    assert first.tobytes() == second.tobytes()
    assert model.loss_and_gradient(first, x, y)[0] < model.loss_and_gradient(vector, x, y)[0]
    for kept, given in zip(before, (vector, x, y), strict=True):
        np.testing.assert_array_equal(kept, given)


@pytest.mark.parametrize(("name", "shape", "outputs"), SHAPES)
def test_clipped_rows_add_up_one_by_one_and_a_broken_row_counts_as_zeros(name, shape, outputs):
    of = spec(name, shape, outputs)
    model, (x, y) = build_model(of), rows(of, 5)
    vector = model.init(generator(1, "init"))
    expected = np.zeros(vector.size)
    for i in range(5):
        gradient = model.loss_and_gradient(vector, x[i : i + 1], y[i : i + 1])[1].astype(np.float64)
        expected += gradient * min(1.0, 0.5 / np.linalg.norm(gradient))
    clipped = model.clipped_sum(vector, x, y, 0.5, generator(4, "clip"))
    np.testing.assert_allclose(clipped, expected, atol=2e-6)
    assert not model.clipped_sum(vector, x[:0], y[:0], 0.5, generator(4, "clip")).any()
    if not of.tokens:
        x[2] = np.nan
        kept = [i for i in range(5) if i != 2]
        rest = model.clipped_sum(vector, x[kept], y[kept], 0.5, generator(4, "clip"))
        np.testing.assert_allclose(
            model.clipped_sum(vector, x, y, 0.5, generator(4, "clip")), rest, atol=1e-7
        )


def test_channels_first_and_last_are_the_same_picture():
    first, last = spec("lenet", (3, 18, 20), 3), spec("lenet", (18, 20, 3), 3)
    x, _ = rows(first)
    models = [build_model(of) for of in (first, last)]
    vector = models[0].init(generator(1, "init"))
    turned = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(models[0].scores(vector, x), models[1].scores(vector, turned), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "shape", "why"),
    [
        ("lenet", (8, 8), r"takes pictures of at least 16 x 16.* has shape \(8, 8\), got 'lenet'"),
        ("lenet", (13,), "takes pictures"),
        ("dwcnn", (9, 9, 9), "takes pictures of at least 4 x 4"),
        ("gru", (4, 4), "takes lines of token numbers"),
    ],
)
def test_rows_that_a_model_cannot_take_are_refused_in_a_sentence(name, shape, why):
    with pytest.raises(BadConfig, match=why):
        build_model(spec(name, shape, 3)).init(generator(1, "init"))


def test_text_models_need_token_numbers():
    with pytest.raises(BadConfig, match=r"shakespeare, and a row of these data has shape \(80,\)"):
        layers(ModelSpec("torch", "lstm", (), None, (80,), 10, "classification"))


def test_a_model_that_a_framework_lacks_is_refused_with_those_that_have_it():
    with pytest.raises(BadConfig, match="is not there in framework numpy, only in torch"):
        build_model(spec("lenet", (28, 28), 10, "numpy"))


@pytest.mark.slow
def test_a_client_process_trains_a_lenet_in_less_than_500_megabytes():
    code = """
import numpy as np
from fedcore.adapters.model import ModelSpec, Training, build_model
model = build_model(ModelSpec("torch", "lenet", (), None, (28, 28), 10, "classification"))
rng = np.random.default_rng(1)
x, y = rng.normal(size=(600, 28, 28)).astype(np.float32), rng.integers(0, 10, 600).astype(np.float32)
vector, _ = model.train(model.init(rng), x, y, Training(0.05, 0.9, 0.0, 1, 20), rng)
model.scores(vector, x)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 50_000 < int(said.stdout) < 500_000  # kB at the peak
