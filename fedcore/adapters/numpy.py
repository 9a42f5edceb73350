"""Dense networks in numpy alone: for devices and tests without a framework."""

from collections.abc import Callable, Mapping
from functools import cache
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from fedcore.adapters.cox import partial_likelihood
from fedcore.adapters.layers import built_in_layout, built_in_start, clip_factors, epochs
from fedcore.adapters.model import ModelSpec, Training
from fedcore.errors import BadConfig, PlanRefused
from fedcore.types import Floats, Layout, Vector

Rows = NDArray[np.float32]
PAYS_FROM = (
    2**24
)  # parameters times rows to train on: below, the interpreter is done before a compiler is imported
# BLAS may call a product of finite numbers invalid, for what lies beside a short row; who trains looks at the numbers.
_QUIET = np.errstate(invalid="ignore")


class NumpyModel:
    """Logistic regression or a ReLU network: see `fedcore.adapters.model.Model`."""

    def __init__(self, spec: ModelSpec) -> None:
        if spec.factory is not None:
            raise BadConfig("model.factory", spec.factory, "needs model.framework torch")
        self.spec = spec
        self.layout: Layout = built_in_layout(spec)

    def init(self, rng: np.random.Generator) -> Vector:
        """Initial parameters (d,)."""
        return built_in_start(self.spec, rng)

    def layers(self, vector: Vector) -> list[tuple[Rows, Rows]]:
        """Weights (in, out) and biases (out,) of each layer; ReLU lies between layers."""
        parts = list(self.layout.split(vector).values())
        return [(weight.T, bias) for weight, bias in zip(parts[::2], parts[1::2], strict=True)]

    def scores(self, vector: Vector, x: Rows) -> Rows:
        """Probabilities or values: see the protocol."""
        return self._activate(self._forward(vector, x)[-1])

    def loss_and_gradient(self, vector: Vector, x: Rows, y: Rows) -> tuple[float, Vector]:
        """Mean loss and its gradient by back-propagation."""
        out, pull = self.pullback(vector, x)
        loss, back = self._loss(out, y)
        return loss, pull(back)

    def pullback(self, vector: Vector, x: Rows) -> tuple[Rows, Callable[[Rows], Vector]]:
        """Logits or scaled values (n, outputs), and what makes the gradient (d,) of one at them (n, outputs)."""
        steps = self._forward(vector, x)

        def pull(back: Rows) -> Vector:
            gradient = np.empty_like(vector)
            parts = list(self.layout.split(gradient).values())
            with np.errstate(invalid="ignore"):
                for i, back_i in enumerate(self._backward(vector, steps, back)):
                    np.matmul(back_i.T, steps[i], out=parts[2 * i])
                    back_i.sum(axis=0, out=parts[2 * i + 1])
            return gradient

        return steps[-1], pull

    def clipped_sum(self, vector: Vector, x: Rows, y: Rows, clip: float, rng: np.random.Generator) -> Floats:
        """Sum of clipped gradients of the rows: see the protocol.

        A row's gradient in a dense layer is an outer product, so its norm needs no gradient.
        Goodfellow 2015, arXiv:1510.01799.
        """
        if self.spec.task == "survival":
            raise PlanRefused(
                "privacy.mode record with survival data: Cox's loss compares rows with one another, so one record moves "
                "every gradient; choose privacy.mode: central or local"
            )
        if not len(x):
            return np.zeros(vector.size)
        with np.errstate(all="ignore"):  # a row that is not finite is left out below
            steps = self._forward(vector, x)
            back = self._loss(steps[-1], y)[1] * np.float32(len(x))
            layers = [
                (step.astype(np.float64), back_i.astype(np.float64))
                for step, back_i in zip(steps, self._backward(vector, steps, back), strict=False)
            ]
            squares = sum((b**2).sum(axis=1) * ((s**2).sum(axis=1) + 1) for s, b in layers)
        kept = np.isfinite(squares)
        factors = clip_factors(np.sqrt(squares[kept]), clip)[:, None]
        parts: list[Floats] = []
        for step, back_i in layers:
            scaled = back_i[kept] * factors
            parts += [(scaled.T @ step[kept]).ravel(), scaled.sum(axis=0)]
        return np.concatenate(parts)

    def train(
        self, vector: Vector, x: Rows, y: Rows, settings: Training, rng: np.random.Generator
    ) -> tuple[Vector, Mapping[str, float]]:
        """Local SGD as `Training` says; ``loss`` is the mean over the last epoch."""
        drawn = list(epochs(len(x), settings, rng))
        last = [len(batch) for batch in drawn[-1]] if drawn else []
        every = [batch for epoch in drawn for batch in epoch]
        if (kernel := self._kernel(y, sum(map(len, every)))) is not None:
            trained, losses = kernel.descend(self.spec, vector, (x, y), every, settings)
        else:
            trained, losses = self._descend(vector, x, y, drawn, settings)
        total = sum(loss * size for loss, size in zip(losses[len(losses) - len(last) :], last, strict=True))
        return trained, {"loss": total / (sum(last) or 1)}

    def _kernel(self, y: Rows, rows: int) -> ModuleType | None:
        """The compiled loop where so many `rows` to train on pay for it: whichever engine asks, the answer is the same."""
        if self.layout.size * rows < PAYS_FROM or self.spec.task == "survival":
            return None
        if self.spec.outputs > 1 and not (y.min() >= 0 and y.max() < self.spec.outputs):
            return None  # numpy says what is wrong with such a label
        return _compiled()

    def _descend(
        self, vector: Vector, x: Rows, y: Rows, drawn: list[list[NDArray[np.intp]]], settings: Training
    ) -> tuple[Vector, list[float]]:
        """Parameters (d,) after a step for each batch, and each batch's mean loss."""
        vector, step, losses = vector.copy(), _step(vector, settings), list[float]()
        for epoch in drawn:
            order, at = np.concatenate(epoch), 0
            epoch_x, epoch_y = x[order], y[order]
            for size in map(len, epoch):
                batch = slice(at, at + size)
                loss, gradient = self.loss_and_gradient(vector, epoch_x[batch], epoch_y[batch])
                step(vector, gradient)
                losses.append(loss)
                at += size
        return vector, losses

    @_QUIET
    def _forward(self, vector: Vector, x: Rows) -> list[Rows]:
        steps = [x.reshape(len(x), -1)]
        layers = self.layers(vector)
        for i, (weight, bias) in enumerate(layers):
            out = steps[-1] @ weight + bias
            steps.append(np.maximum(out, 0) if i + 1 < len(layers) else out)
        return steps

    @_QUIET
    def _backward(self, vector: Vector, steps: list[Rows], back: Rows) -> list[Rows]:
        """Gradients (n, out) at the outputs of each layer, first to last, from `back` at the last."""
        backs = [back]
        for i in range(len(steps) - 2, 0, -1):
            weight, _ = self.layers(vector)[i]
            backs.insert(0, (backs[0] @ weight.T) * (steps[i] > 0))
        return backs

    def _activate(self, out: Rows) -> Rows:
        if self.spec.task == "survival":
            return out[:, 0]
        if self.spec.task == "regression":
            center, scale = self.spec.target
            return out[:, 0] * np.float32(scale) + np.float32(center)
        if self.spec.outputs == 1:
            return _sigmoid(out[:, 0])
        return _softmax(out)

    def _loss(self, out: Rows, y: Rows) -> tuple[float, Rows]:
        rows = np.float32(len(out))
        if self.spec.task == "survival":
            likelihood, slope = partial_likelihood(out[:, 0], y)
            return likelihood, slope.astype(np.float32)[:, None]
        if self.spec.task == "regression":
            center, scale = self.spec.target
            error = out[:, 0] - (y - np.float32(center)) / np.float32(scale)
            back: Rows = (2 * error / rows).astype(np.float32)[:, None]
            return float(np.mean(error**2)), back
        if self.spec.outputs == 1:
            logit = out[:, 0]
            loss = np.mean(np.maximum(logit, 0) - logit * y + np.log1p(np.exp(-np.abs(logit))))
            return float(loss), ((_sigmoid(logit) - y) / rows)[:, None]
        back, index = _softmax(out), (np.arange(len(out)), y.astype(np.int64))
        loss = -np.mean(np.log(np.maximum(back[index], np.finfo(np.float32).tiny)))
        back[index] -= 1
        return float(loss), back / rows


@cache
def _compiled() -> ModuleType | None:
    """`fedcore.adapters.numpy_compiled`, if numba is there."""
    try:
        from fedcore.adapters import numpy_compiled
    except ImportError:
        return None
    return numpy_compiled


def _step(start: Vector, settings: Training) -> Callable[[Vector, Vector], None]:
    """A step of SGD that adds to a gradient what `Training` says; it changes vector and gradient in place."""
    anchor = start if settings.anchor is None else settings.anchor
    velocity, scratch = np.zeros_like(start), np.empty_like(start)

    def step(vector: Vector, gradient: Vector) -> None:
        if settings.weight_decay:
            gradient += np.multiply(vector, np.float32(settings.weight_decay), out=scratch)
        if settings.correction is not None:
            gradient += settings.correction
        if settings.proximal:
            np.subtract(vector, anchor, out=scratch)
            gradient += np.multiply(scratch, np.float32(settings.proximal), out=scratch)
        if settings.mask is not None:
            gradient *= settings.mask
        moved = gradient
        if settings.momentum:
            np.multiply(velocity, np.float32(settings.momentum), out=velocity)
            moved = np.add(velocity, gradient, out=velocity)
        vector -= np.multiply(moved, np.float32(settings.lr), out=scratch)

    return step


def _sigmoid(logit: Rows) -> Rows:
    return np.where(
        logit >= 0, 1 / (1 + np.exp(-np.abs(logit))), 1 - 1 / (1 + np.exp(-np.abs(logit)))
    ).astype(np.float32)


def _softmax(out: Rows) -> Rows:
    shifted = np.exp(out - out.max(axis=1, keepdims=True))
    result: Rows = shifted / shifted.sum(axis=1, keepdims=True)
    return result
