"""Linear models and dense networks in scikit-learn: its estimators that learn from batches by ``partial_fit``.

These are `MLPClassifier` and `MLPRegressor`; without a hidden layer they are the linear models. They
take a batch a step and know a softmax; `SGDClassifier` takes one row a step and each class against
the rest, which is another model than those of the other frameworks. A step of rate 1 from given
parameters shows the gradient: nothing but scikit-learn's public interface is used.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.neural_network import MLPClassifier, MLPRegressor

from fedcore.adapters.descent import descend
from fedcore.adapters.layers import built_in_layout, built_in_start, clipped_one_by_one
from fedcore.adapters.model import ModelSpec, Training
from fedcore.errors import BadConfig
from fedcore.types import Floats, Layout, Vector

Rows = NDArray[np.float32]


class SklearnModel:
    """An estimator as a function of a flat vector: see `fedcore.adapters.model.Model`."""

    def __init__(self, spec: ModelSpec) -> None:
        if spec.factory is not None:
            raise BadConfig("model.factory", spec.factory, "needs model.framework torch, tensorflow or mlx")
        self.spec = spec
        self.layout: Layout = built_in_layout(spec)

    def init(self, rng: np.random.Generator) -> Vector:
        """Initial parameters (d,)."""
        return built_in_start(self.spec, rng)

    def estimator(self, vector: Vector) -> Any:
        """A fitted scikit-learn estimator of its own that holds `vector`, for rows (n, inputs)."""
        return self._hold(self._fresh(), vector)

    def scores(self, vector: Vector, x: Rows) -> Rows:
        """Probabilities or values: see the protocol."""
        held, rows = self._hold(self._kept, vector), self._flat(x)
        if self.spec.task == "regression":
            center, scale = self.spec.target
            values: Rows = (held.predict(rows) * scale + center).astype(np.float32)
            return values
        chances = held.predict_proba(rows).astype(np.float32)
        result: Rows = chances[:, 1] if self.spec.outputs == 1 else chances
        return result

    def loss_and_gradient(self, vector: Vector, x: Rows, y: Rows) -> tuple[float, Vector]:
        """Mean loss and its gradient; not numbers where scikit-learn refuses to step, as at parameters that are none."""
        held = self._hold(self._kept, vector)
        before = [part.copy() for part in (*held.coefs_, *held.intercepts_)]
        held.batch_size = len(x)
        try:
            held.partial_fit(self._flat(x), self._labels(y))
        except ValueError:
            return float("nan"), np.full_like(vector, np.nan)
        after = (*held.coefs_, *held.intercepts_)
        steps = [old - new for old, new in zip(before, after, strict=True)]
        half = len(held.coefs_)
        parts = [
            part for pair in zip((w.T for w in steps[:half]), steps[half:], strict=True) for part in pair
        ]
        factor = 2.0 if self.spec.task == "regression" else 1.0  # scikit-learn halves squares
        gradient = factor * np.concatenate([part.ravel() for part in parts])
        return factor * float(held.loss_), gradient.astype(np.float32)

    def train(
        self, vector: Vector, x: Rows, y: Rows, settings: Training, rng: np.random.Generator
    ) -> tuple[Vector, Mapping[str, float]]:
        """Local SGD as `Training` says; ``loss`` is the mean over the last epoch."""
        return descend(self.loss_and_gradient, vector, x, y, settings, rng)

    def clipped_sum(self, vector: Vector, x: Rows, y: Rows, clip: float, rng: np.random.Generator) -> Floats:
        """Sum of clipped gradients of the rows, one by one: see the protocol."""
        return clipped_one_by_one(
            lambda a, b: self.loss_and_gradient(vector, a, b)[1], x, y, clip, vector.size
        )

    @cached_property
    def _kept(self) -> Any:
        return self._fresh()

    def _fresh(self) -> Any:
        """An estimator that has met every class, so that it can be given parameters."""
        shapes = [shape for shape in self.layout.shapes if len(shape) == 2]
        settings = {
            "hidden_layer_sizes": tuple(outputs for outputs, _ in shapes[:-1]),
            "solver": "sgd",
            "alpha": 0.0,
            "learning_rate_init": 1.0,
            "momentum": 0.0,
            "nesterovs_momentum": False,
            "shuffle": False,
            "random_state": 0,
        }
        classes = np.arange(max(self.spec.outputs, 2))
        nothing = np.zeros((len(classes), shapes[0][1]))
        if self.spec.task == "regression":
            return MLPRegressor(**settings, batch_size=len(classes)).partial_fit(nothing, classes * 1.0)
        return MLPClassifier(**settings, batch_size=len(classes)).partial_fit(
            nothing, classes, classes=classes
        )

    def _hold(self, estimator: Any, vector: Vector) -> Any:
        parts = [part.astype(np.float64) for part in self.layout.split(vector).values()]
        estimator.coefs_ = [weight.T.copy() for weight in parts[::2]]
        estimator.intercepts_ = parts[1::2]
        return estimator

    def _labels(self, y: Rows) -> NDArray[Any]:
        if self.spec.task == "regression":
            center, scale = self.spec.target
            values: NDArray[Any] = (y.astype(np.float64) - center) / scale
            return values
        return y.astype(np.int64)

    def _flat(self, x: Rows) -> Floats:
        return x.reshape(len(x), -1).astype(np.float64)
