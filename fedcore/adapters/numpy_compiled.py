"""Local SGD of dense networks compiled as one loop, without the interpreter's lock: threads train side by side.

What `fedcore.adapters.numpy` computes, equal up to the rounding of products and exponentials. Activations lie as
(units, rows), so that a layer is weight @ activations, the shape in which BLAS multiplies few rows fastest.
"""

from typing import Any, NamedTuple

import numpy as np
import scipy.linalg  # noqa: F401  (its BLAS is what numba calls)

from fedcore.adapters.layers import built_in_layout
from fedcore.adapters.model import ModelSpec, Training
from fedcore.one_thread import one_thread
from fedcore.rules.compiled import numba_is_imported
from fedcore.rules.numba import compiled
from fedcore.types import Vector

numba_is_imported()
_TINY = np.float32(np.finfo(np.float32).tiny)
_NOTHING = np.empty(0, np.float32)
_CLASSES, _TWO_CLASSES, _REGRESSION = 0, 1, 2


class Additions(NamedTuple):
    """What `Training` adds to a gradient; a vector that is empty adds nothing."""

    lr: Any
    momentum: Any
    weight_decay: Any
    proximal: Any
    correction: Any
    anchor: Any
    mask: Any


def descend(
    spec: ModelSpec, vector: Vector, data: tuple[Any, Any], batches: list[Any], settings: Training
) -> tuple[Vector, list[float]]:
    """Parameters (d,) after a step of SGD on each of the `batches` (row numbers), and each batch's mean loss.

    `data` are rows and labels, which must lie among the classes. Not for survival, whose loss compares rows.
    """
    x, y = data
    task = _REGRESSION if spec.task == "regression" else _TWO_CLASSES if spec.outputs == 1 else _CLASSES
    shapes = built_in_layout(spec).shapes[::2]
    units = np.array([shapes[0][1], *(out for out, _ in shapes)])
    single = np.float32
    given = Additions(
        single(settings.lr),
        single(settings.momentum),
        single(settings.weight_decay),
        single(settings.proximal),
        _NOTHING if settings.correction is None else np.ascontiguousarray(settings.correction),
        vector if settings.anchor is None else np.ascontiguousarray(settings.anchor),
        _NOTHING if settings.mask is None else np.ascontiguousarray(settings.mask, np.float32),
    )
    rows = np.ascontiguousarray(x.reshape(len(x), -1))
    trained, order = vector.copy(), np.concatenate(batches)
    sizes = np.array([len(batch) for batch in batches])
    target = (single(spec.target[0]), single(spec.target[1]))
    with one_thread():
        losses = train(trained, units, rows, np.asarray(y, np.float32), order, sizes, task, target, given)
    return trained, losses.tolist()


@compiled
def product(a: Any, b: Any, out: Any) -> None:
    """Fill `out` with a @ b: compiled once for each order of rows and columns, not at each place."""
    np.dot(a, b, out)


@compiled
def weights_at(flat: Any, units: Any, layer: int) -> tuple[Any, Any]:
    """Views of a layer's weight (out, in) and bias (out,) in a vector of parameters."""
    start = 0
    for i in range(layer):
        start += units[i + 1] * (units[i] + 1)
    middle = start + units[layer + 1] * units[layer]
    weight = flat[start:middle].reshape((units[layer + 1], units[layer]))
    return weight, flat[middle : middle + units[layer + 1]]


@compiled
def shaped(space: Any, layer: int, rows: int, units: Any) -> Any:
    """Room for a layer's (units, rows) at the front of its part of `space`."""
    return space[layer, : units[layer] * rows].reshape((units[layer], rows))


@compiled
def forward(flat: Any, units: Any, x: Any, space: Any) -> None:
    """Fill `space` with what each layer makes of the rows `x`; ReLU lies between layers."""
    rows, last = len(x), len(units) - 2
    for layer in range(last + 1):
        weight, bias = weights_at(flat, units, layer)
        out = shaped(space, layer + 1, rows, units)
        if layer == 0:
            product(weight, x.T, out)
        else:
            product(weight, shaped(space, layer, rows, units), out)
        for i in range(len(bias)):
            for j in range(rows):
                value = out[i, j] + bias[i]
                out[i, j] = value if layer == last or not value < 0 else np.float32(0)


@compiled
def slope(out: Any, y: Any, task: int, target: Any) -> float:
    """Mean loss of the outputs (units, rows); `out` becomes its gradient."""
    rows, loss = out.shape[1], 0.0
    share = np.float32(rows)
    for j in range(rows):
        if task == _REGRESSION:
            error = out[0, j] - (y[j] - target[0]) / target[1]
            loss += error * error
            out[0, j] = np.float32(2) * error / share
        elif task == _TWO_CLASSES:
            logit = out[0, j]
            small = np.exp(-abs(logit))
            loss += max(logit, np.float32(0)) - logit * y[j] + np.log1p(small)
            likely = np.float32(1) / (np.float32(1) + small)
            out[0, j] = ((likely if logit >= 0 else np.float32(1) - likely) - y[j]) / share
        else:
            top, total, own = out[0, j], np.float32(0), int(y[j])
            for i in range(1, len(out)):
                top = max(top, out[i, j])
            for i in range(len(out)):
                out[i, j] = np.exp(out[i, j] - top)
                total += out[i, j]
            for i in range(len(out)):
                out[i, j] /= total
            loss -= np.log(max(out[own, j], _TINY))
            out[own, j] -= np.float32(1)
            for i in range(len(out)):
                out[i, j] /= share
    return float(loss / rows)


@compiled
def backward(flat: Any, units: Any, x: Any, space: Any, backs: Any, gradient: Any) -> None:
    """Fill `gradient`; the last layer's part of `space` holds the loss's gradient at the outputs."""
    rows, last = len(x), len(units) - 2
    back = shaped(space, last + 1, rows, units)
    for layer in range(last, -1, -1):
        weight, _ = weights_at(flat, units, layer)
        of_weight, of_bias = weights_at(gradient, units, layer)
        below = shaped(space, layer, rows, units)
        if layer == 0:
            product(back, x, of_weight)
        else:
            product(back, below.T, of_weight)
        for i in range(len(of_bias)):
            of_bias[i] = 0
            for j in range(rows):
                of_bias[i] += back[i, j]
        if layer:
            lower = shaped(backs, layer, rows, units)
            product(weight.T, back, lower)
            for i in range(units[layer]):
                for j in range(rows):
                    lower[i, j] = lower[i, j] if below[i, j] > 0 else np.float32(0)
            back = lower


@compiled
def step(flat: Any, gradient: Any, velocity: Any, given: Additions) -> None:
    """One step of SGD on `flat`, as `fedcore.adapters.model.Training` says; changes all three."""
    if given.weight_decay != 0:
        for k in range(len(flat)):
            gradient[k] += flat[k] * given.weight_decay
    if len(given.correction):
        for k in range(len(flat)):
            gradient[k] += given.correction[k]
    if given.proximal != 0:
        for k in range(len(flat)):
            gradient[k] += (flat[k] - given.anchor[k]) * given.proximal
    if len(given.mask):
        for k in range(len(flat)):
            gradient[k] *= given.mask[k]
    if given.momentum != 0:
        for k in range(len(flat)):
            velocity[k] = velocity[k] * given.momentum + gradient[k]
            gradient[k] = velocity[k]
    for k in range(len(flat)):
        flat[k] -= gradient[k] * given.lr


@compiled
def train(
    flat: Any, units: Any, x: Any, y: Any, order: Any, sizes: Any, task: int, target: Any, given: Additions
) -> Any:
    """Change `flat` by a step for each batch of `sizes` rows in `order`; each batch's mean loss."""
    losses, at, most = np.empty(len(sizes)), 0, sizes.max()
    space = np.empty((len(units), units.max() * most), np.float32)
    backs = np.empty((len(units), units[1:].max() * most), np.float32)
    rows, labels = np.empty((most, units[0]), np.float32), np.empty(most, np.float32)
    gradient = np.empty_like(flat)
    velocity = np.zeros(len(flat) if given.momentum != 0 else 0, np.float32)
    for number in range(len(sizes)):
        size = sizes[number]
        for i in range(size):
            rows[i] = x[order[at + i]]
            labels[i] = y[order[at + i]]
        batch = rows[:size]
        forward(flat, units, batch, space)
        losses[number] = slope(shaped(space, len(units) - 1, size, units), labels, task, target)
        backward(flat, units, batch, space, backs, gradient)
        step(flat, gradient, velocity, given)
        at += size
    return losses
