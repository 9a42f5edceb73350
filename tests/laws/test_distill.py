"""Distillation: the slope is that of the loss it says, and each end of the mixture is what it should be."""

from dataclasses import replace

import numpy as np
import pytest

from fedcore.adapters.model import ModelSpec, Training, build_model
from fedcore.errors import Diverged
from fedcore.local.distill import Lesson, distilled, slope
from fedcore.rng import generator

SPECS = {
    "two classes": ModelSpec("numpy", "mlp", (5,), None, (3,), 1, "classification"),
    "four classes": ModelSpec("numpy", "mlp", (5,), None, (3,), 4, "classification"),
    "regression": ModelSpec("numpy", "mlp", (5,), None, (3,), 1, "regression", (2.0, 3.0)),
}
SETTINGS = Training(lr=0.1, momentum=0.9, weight_decay=0.01, epochs=3, batch_size=8)


def made(spec: ModelSpec, rows: int = 20):
    rng = generator(3, "distil", spec.task, spec.outputs)
    x = rng.normal(size=(rows, 3)).astype(np.float32)
    if spec.task == "regression":
        return x, rng.normal(2, 3, rows).astype(np.float32), rng.normal(2, 3, rows).astype(np.float32)
    y = rng.integers(max(2, spec.outputs), size=rows).astype(np.float32)
    taught = rng.dirichlet(np.ones(max(2, spec.outputs)), rows).astype(np.float32)
    return x, y, taught[:, 1] if spec.outputs == 1 else taught


def loss(out: np.ndarray, y: np.ndarray, taught: np.ndarray, spec: ModelSpec, lesson: Lesson) -> float:
    """What the paper's section 2 says, written the long way in float64."""
    out, w, t = out.astype(np.float64), lesson.label_weight, lesson.temperature
    if spec.task == "regression":
        center, scale = spec.target
        errors = [(out[:, 0] - (v - center) / scale) ** 2 for v in (y.astype(float), taught.astype(float))]
        return float(np.mean(w * errors[0] + (1 - w) * errors[1]))
    wide = np.hstack([np.zeros_like(out), out]) if spec.outputs == 1 else out
    says = np.stack([1 - taught, taught], axis=1) if spec.outputs == 1 else taught
    soft = says.astype(float) ** (1 / t)
    soft /= soft.sum(axis=1, keepdims=True)

    def logs(z: np.ndarray) -> np.ndarray:
        return z - np.log(np.exp(z).sum(axis=1, keepdims=True))

    hard = -logs(wide)[np.arange(len(y)), y.astype(int)]
    return float(np.mean(w * hard - (1 - w) * t**2 * (soft * logs(wide / t)).sum(axis=1)))


@pytest.mark.parametrize("lesson", [Lesson(), Lesson(1.0, 0.0), Lesson(2.5, 0.3)])
@pytest.mark.parametrize("kind", SPECS)
def test_the_slope_is_the_derivative_of_the_loss(kind, lesson):
    spec = SPECS[kind]
    _, y, taught = made(spec, 6)
    out = generator(4, kind).normal(size=(6, spec.outputs)).astype(np.float32)
    found, step = slope(out, y, taught, spec, lesson), 1e-4
    for row, column in np.ndindex(out.shape):
        up, down = out.astype(np.float64), out.astype(np.float64)
        up[row, column] += step
        down[row, column] -= step
        numeric = (loss(up, y, taught, spec, lesson) - loss(down, y, taught, spec, lesson)) / (2 * step)
        assert found[row, column] == pytest.approx(numeric, abs=2e-4)


@pytest.mark.parametrize("framework", ["numpy", "torch"])
@pytest.mark.parametrize("kind", SPECS)
def test_labels_alone_are_plain_training(kind, framework):
    spec = replace(SPECS[kind], framework=framework)
    x, y, taught = made(spec)
    model = build_model(spec)
    start = model.init(generator(1, "start"))
    ours = distilled(
        model, start, (x, y), taught, SETTINGS, Lesson(label_weight=1.0), generator(1, "batches")
    )
    theirs, _ = model.train(start, x, y, SETTINGS, generator(1, "batches"))
    np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("kind", SPECS)
def test_a_student_that_says_what_its_teacher_says_has_nothing_to_learn(kind):
    spec = SPECS[kind]
    model, (x, y, _) = build_model(spec), made(spec)
    vector = model.init(generator(2, "start"))
    out, pull = model.pullback(vector, x)
    back = slope(out, y, model.scores(vector, x), spec, Lesson(label_weight=0.0))
    np.testing.assert_allclose(pull(back), 0, atol=1e-5)


def test_a_student_that_leaves_the_finite_numbers_is_named():
    spec = SPECS["regression"]
    x, y, taught = made(spec)
    model, settings = build_model(spec), replace(SETTINGS, lr=1e20)
    with pytest.raises(Diverged, match="the student is not finite; lower --lr"):
        distilled(model, model.init(generator(1)), (x, y), taught, settings, Lesson(), generator(1))
