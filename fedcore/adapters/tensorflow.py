"""Models in TensorFlow, on one thread if it is not running yet: built-in dense networks, or a Keras model by import path.

A Keras model runs by ``stateless_call``: its parameters are pieces of the flat vector and its own
variables stay as they were built. Keras 3 with the TensorFlow backend.
"""

import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf

from fedcore.adapters.descent import descend
from fedcore.adapters.factory import made_by, refuse_outputs, refuse_rows
from fedcore.adapters.layers import built_in_layout, built_in_start, clip_factors, clipped_one_by_one
from fedcore.adapters.model import ModelSpec, Training
from fedcore.errors import BadConfig
from fedcore.types import Floats, Layout, Vector

with suppress(RuntimeError):  # TensorFlow runs already, with its own number of threads
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)

Rows = NDArray[np.float32]
_CHUNK = 32  # rows whose gradients are held at once
_STEPS = 1 << 31


class TensorflowModel:
    """A function of a flat vector, differentiated by TensorFlow: see `fedcore.adapters.model.Model`."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self._seed = tf.Variable(0, dtype=tf.int64, trainable=False)

    @cached_property
    def layout(self) -> Layout:
        """The built-in layout, or the paths and shapes of the Keras model's variables in its own order."""
        if not self.spec.factory:
            return built_in_layout(self.spec)
        variables = self._keras.trainable_variables
        return Layout(tuple(v.path for v in variables), tuple(tuple(v.shape) for v in variables))

    def init(self, rng: np.random.Generator) -> Vector:
        """Initial parameters (d,): the built-in start, or the Keras model's own under a seed from `rng`."""
        if not self.spec.factory:
            return built_in_start(self.spec, rng)
        variables = self._build(int(rng.integers(_STEPS))).trainable_variables
        return np.concatenate([np.asarray(v).ravel() for v in variables]).astype(np.float32)

    def scores(self, vector: Vector, x: Rows) -> Rows:
        """Probabilities or values: see the protocol."""
        out = self._outputs(tf.constant(vector), tf.constant(x), False)
        if self.spec.task == "regression":
            center, scale = self.spec.target
            values: Rows = (out[:, 0] * scale + center).numpy()
            return values
        chances: Rows = (tf.sigmoid(out[:, 0]) if self.spec.outputs == 1 else tf.nn.softmax(out)).numpy()
        return chances

    def loss_and_gradient(self, vector: Vector, x: Rows, y: Rows) -> tuple[float, Vector]:
        """Mean loss and its gradient."""
        loss, gradient = self._slope(tf.constant(vector), tf.constant(x), tf.constant(y))
        return float(loss), np.array(gradient)

    def train(
        self, vector: Vector, x: Rows, y: Rows, settings: Training, rng: np.random.Generator
    ) -> tuple[Vector, Mapping[str, float]]:
        """Local SGD as `Training` says; ``loss`` is the mean over the last epoch."""
        draws = rng.spawn(1)[0]  # dropout; the order of batches stays as in numpy

        def gradient(at: Vector, batch_x: Rows, batch_y: Rows) -> tuple[float, Vector]:
            self._seed.assign(int(draws.integers(_STEPS)))
            return self.loss_and_gradient(at, batch_x, batch_y)

        try:
            return descend(gradient, vector, x, y, settings, rng)
        finally:
            self._seed.assign(0)

    def clipped_sum(self, vector: Vector, x: Rows, y: Rows, clip: float, rng: np.random.Generator) -> Floats:
        """Sum of clipped gradients of the rows: see the protocol.

        By a Jacobian, or one by one where a row would spoil the others': in a Keras model, whose
        rows may see one another, and where one is not finite, as the Jacobian multiplies it in.
        """
        whole = bool(np.isfinite(x).all() and np.isfinite(y).all())
        if self.spec.factory or not whole:
            self._seed.assign(int(rng.integers(_STEPS)))
            return self._one_by_one(vector, x, y, clip)
        summed = np.zeros(vector.size)
        for start in range(0, len(x), _CHUNK):
            part = slice(start, start + _CHUNK)
            slopes = self._slopes(tf.constant(vector), tf.constant(x[part]), tf.constant(y[part]))
            gradients = slopes.numpy().astype(np.float64)
            lengths = np.linalg.norm(gradients, axis=1)
            if not np.isfinite(lengths).all():  # a row that is finite may still overflow on its way
                return self._one_by_one(vector, x, y, clip)
            summed += clip_factors(lengths, clip) @ gradients
        return summed

    def _one_by_one(self, vector: Vector, x: Rows, y: Rows, clip: float) -> Floats:
        return clipped_one_by_one(
            lambda a, b: self.loss_and_gradient(vector, a, b)[1], x, y, clip, vector.size
        )

    @cached_property
    def _keras(self) -> Any:
        return self._build(0)

    def _build(self, seed: int) -> Any:
        """The factory's model, built for the data's rows."""
        with _seeded(seed):
            model: Any = made_by(self.spec, keras.Model, "a keras.Model")
            try:  # before any client trains, and not where `tf.function` would wrap what is said
                out = model(np.zeros((2, *self.spec.input_shape), np.float32))
            except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
                raise refuse_rows(self.spec, self.spec.input_shape, error) from None
        refuse_outputs(self.spec, 2, out)
        if model.non_trainable_weights:
            raise BadConfig(
                "model.factory",
                self.spec.factory,
                "holds weights that are not trained (such as batch norm's), which averaging would lose; use group norm",
            )
        return model

    @cached_property
    def _slope(self) -> Any:
        def slope(vector: Any, x: Any, y: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(vector)
                loss = tf.reduce_mean(self._losses(vector, x, y))
            return loss, tape.gradient(loss, vector)

        return tf.function(slope, input_signature=self._signature)

    @cached_property
    def _slopes(self) -> Any:
        def slopes(vector: Any, x: Any, y: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(vector)
                losses = self._losses(vector, x, y)
            return tape.jacobian(losses, vector)

        return tf.function(slopes, input_signature=self._signature)

    @property
    def _signature(self) -> tuple[Any, ...]:
        shapes = ([self.layout.size], [None, *self.spec.input_shape], [None])
        return tuple(tf.TensorSpec(shape, tf.float32) for shape in shapes)

    def _outputs(self, vector: Any, x: Any, training: bool) -> Any:
        """Logits or values (n, outputs)."""
        sizes = [int(np.prod(shape, dtype=np.int64)) for shape in self.layout.shapes]
        pieces = zip(tf.split(vector, sizes), self.layout.shapes, strict=True)
        parts = [tf.reshape(piece, shape) for piece, shape in pieces]
        if not self.spec.factory:
            return _dense(parts, x)
        try:
            seeds = [self._draws(v) for v in self._keras.non_trainable_variables]
            out, _ = self._keras.stateless_call(parts, seeds, x, training=training)
        except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
            raise refuse_rows(self.spec, tuple(x.shape[1:]), error) from None
        return out

    def _draws(self, state: Any) -> Any:
        """The state of one of the model's generators (dropout), made of the seed of the batch."""
        return tf.cast(tf.fill(state.shape, self._seed), state.dtype)

    def _losses(self, vector: Any, x: Any, y: Any) -> Any:
        """Each row's loss (n,)."""
        out = self._outputs(vector, x, True)
        if self.spec.task == "regression":
            center, scale = self.spec.target
            return (out[:, 0] - (y - center) / scale) ** 2
        if self.spec.outputs == 1:
            return tf.nn.sigmoid_cross_entropy_with_logits(y, out[:, 0])
        return tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(y, tf.int32), out)


def _dense(parts: list[Any], x: Any) -> Any:
    out = tf.reshape(x, [-1, int(np.prod(x.shape[1:]))])
    for i in range(0, len(parts), 2):
        out = tf.linalg.matmul(out, parts[i], transpose_b=True) + parts[i + 1]
        out = tf.nn.relu(out) if i + 2 < len(parts) else out
    return out


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Keras draws from the generators of Python and numpy: at `seed` for a while, afterwards where they were."""
    python, numpy = random.getstate(), np.random.get_state()
    keras.utils.set_random_seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
