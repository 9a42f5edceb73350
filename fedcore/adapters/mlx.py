"""Models in MLX: the built-in dense networks, or any ``mlx.nn.Module`` by import path. On the CPU."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import mlx.core
import numpy as np
from mlx import nn
from mlx.utils import tree_flatten, tree_unflatten
from numpy.typing import NDArray

from fedcore.adapters.descent import descend
from fedcore.adapters.factory import made_by, refuse_outputs, refuse_rows
from fedcore.adapters.layers import built_in_layout, built_in_start, clip_factors, clipped_one_by_one
from fedcore.adapters.model import ModelSpec, Training
from fedcore.errors import BadConfig
from fedcore.types import Floats, Layout, Vector

mx: Any = mlx.core  # its stubs do not say what its functions take and return
Rows = NDArray[np.float32]
_CHUNK = 32  # rows whose gradients are held at once


class MlxModel:
    """A function of a flat vector, differentiated by MLX: see `fedcore.adapters.model.Model`."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec

    @cached_property
    def layout(self) -> Layout:
        """The built-in layout, or the names and shapes of the module's parameters in its own order."""
        if not self.spec.factory:
            return built_in_layout(self.spec)
        named = _parameters(self._module)
        return Layout(tuple(name for name, _ in named), tuple(tuple(part.shape) for _, part in named))

    def init(self, rng: np.random.Generator) -> Vector:
        """Initial parameters (d,): the built-in start, or the module's own under a seed from `rng`."""
        if not self.spec.factory:
            return built_in_start(self.spec, rng)
        parts = [np.array(part).ravel() for _, part in _parameters(self._build(int(rng.integers(2**63))))]
        return np.concatenate(parts).astype(np.float32)

    def scores(self, vector: Vector, x: Rows) -> Rows:
        """Probabilities or values: see the protocol."""
        with mx.stream(mx.cpu):
            out = self._outputs(mx.array(vector), mx.array(x), False)
            if self.spec.task == "regression":
                center, scale = self.spec.target
                return np.array(out[:, 0] * scale + center)
            return np.array(mx.sigmoid(out[:, 0]) if self.spec.outputs == 1 else mx.softmax(out, axis=1))

    def loss_and_gradient(self, vector: Vector, x: Rows, y: Rows) -> tuple[float, Vector]:
        """Mean loss and its gradient."""
        with mx.stream(mx.cpu):
            loss, gradient = self._slope(mx.array(vector), mx.array(x), mx.array(y))
            return float(loss.item()), np.array(gradient)

    def train(
        self, vector: Vector, x: Rows, y: Rows, settings: Training, rng: np.random.Generator
    ) -> tuple[Vector, Mapping[str, float]]:
        """Local SGD as `Training` says; ``loss`` is the mean over the last epoch."""
        seed = int(rng.spawn(1)[0].integers(2**63))  # dropout; the order of batches stays as in numpy
        with _drawing(seed):
            return descend(self.loss_and_gradient, vector, x, y, settings, rng)

    def clipped_sum(self, vector: Vector, x: Rows, y: Rows, clip: float, rng: np.random.Generator) -> Floats:
        """Sum of clipped gradients of the rows, by ``vmap``, or one by one for a module of yours: see the protocol."""
        with _drawing(int(rng.integers(2**63))), mx.stream(mx.cpu):
            if self.spec.factory:  # a row alone cannot see another, whatever the module does
                return clipped_one_by_one(
                    lambda a, b: self.loss_and_gradient(vector, a, b)[1], x, y, clip, vector.size
                )
            at, summed = mx.array(vector), np.zeros(vector.size)
            for start in range(0, len(x), _CHUNK):
                part = slice(start, start + _CHUNK)
                gradients = np.array(self._slopes(at, mx.array(x[part]), mx.array(y[part]))).astype(
                    np.float64
                )
                lengths = np.linalg.norm(gradients, axis=1)
                kept = np.isfinite(lengths)
                summed += clip_factors(lengths[kept], clip) @ gradients[kept]
            return summed

    @cached_property
    def _module(self) -> nn.Module:
        return self._build(0)

    def _build(self, seed: int) -> nn.Module:
        with _drawing(seed), mx.stream(mx.cpu):
            module = made_by(self.spec, nn.Module, "an mlx.nn.Module")
        if len(tree_flatten(module.parameters())) != len(_parameters(module)):
            raise BadConfig(
                "model.factory",
                self.spec.factory,
                "holds parameters that are not trained (such as batch norm's), which averaging would lose; use group norm",
            )
        with mx.stream(mx.cpu):  # before any client trains
            self._called(module.eval(), mx.zeros((2, *self.spec.input_shape)))
        return module

    @cached_property
    def _slope(self) -> Any:
        return mx.value_and_grad(self._loss)

    @cached_property
    def _slopes(self) -> Any:
        def alone(vector: Any, x: Any, y: Any) -> Any:
            return self._loss(vector, x[None], y[None])

        return mx.vmap(mx.grad(alone), in_axes=(None, 0, 0))

    def _outputs(self, vector: Any, x: Any, training: bool) -> Any:
        """Logits or values (n, outputs)."""
        parts, start = [], 0
        for shape in self.layout.shapes:
            size = int(np.prod(shape, dtype=np.int64))
            parts.append(vector[start : start + size].reshape(shape))
            start += size
        if not self.spec.factory:
            return _dense(parts, x)
        module = self._module.train(training)
        module.update(tree_unflatten(list(zip(self.layout.names, parts, strict=True))))
        return self._called(module, x)

    def _called(self, module: Any, x: Any) -> Any:
        try:
            out = module(x)
        except (ValueError, RuntimeError, TypeError, IndexError) as error:
            raise refuse_rows(self.spec, tuple(x.shape[1:]), error) from None
        refuse_outputs(self.spec, x.shape[0], out)
        return out

    def _loss(self, vector: Any, x: Any, y: Any) -> Any:
        out = self._outputs(vector, x, True)
        if self.spec.task == "regression":
            center, scale = self.spec.target
            return mx.mean((out[:, 0] - (y - center) / scale) ** 2)
        if self.spec.outputs == 1:
            logit = out[:, 0]
            return mx.mean(mx.logaddexp(mx.zeros_like(logit), logit) - logit * y)
        chosen = mx.take_along_axis(out, y.astype(mx.int32)[:, None], axis=1)[:, 0]
        return mx.mean(mx.logsumexp(out, axis=1) - chosen)


def _dense(parts: list[Any], x: Any) -> Any:
    out = x.reshape(x.shape[0], -1)
    for i in range(0, len(parts), 2):
        out = out @ parts[i].T + parts[i + 1]
        out = mx.maximum(out, 0) if i + 2 < len(parts) else out
    return out


def _parameters(module: nn.Module) -> list[tuple[str, Any]]:
    return list(tree_flatten(module.trainable_parameters()))


@contextmanager
def _drawing(seed: int) -> Iterator[None]:
    """MLX's generator at `seed` for a while; afterwards it is where it was: its state is the halves of a seed."""
    high, low = (int(half) for half in mx.random.state[0])
    mx.random.seed(seed)
    try:
        yield
    finally:
        mx.random.seed(high << 32 | low)
