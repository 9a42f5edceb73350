"""Local SGD of a model that is known by its gradient alone: the loop of adapters whose framework brings none of its own."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from fedcore.adapters.layers import epochs
from fedcore.adapters.model import Training
from fedcore.types import Vector

Rows = NDArray[np.float32]
Gradient = Callable[[Vector, Rows, Rows], tuple[float, Vector]]


def descend(
    gradient: Gradient, vector: Vector, x: Rows, y: Rows, settings: Training, rng: np.random.Generator
) -> tuple[Vector, Mapping[str, float]]:
    """Parameters (d,) after local SGD as `Training` says, and ``loss``, the mean over the last epoch.

    `gradient` gives a batch's mean loss and its gradient (d,), which may be changed.
    """
    anchor = vector if settings.anchor is None else settings.anchor
    vector, velocity = vector.copy(), np.zeros_like(vector)
    total, seen = 0.0, 1
    for epoch in epochs(len(x), settings, rng):
        total, seen = 0.0, sum(map(len, epoch))
        for rows in epoch:
            loss, step = gradient(vector, x[rows], y[rows])
            step += np.float32(settings.weight_decay) * vector
            if settings.correction is not None:
                step += settings.correction
            if settings.proximal:
                step += np.float32(settings.proximal) * (vector - anchor)
            if settings.mask is not None:
                step *= settings.mask
            velocity = np.float32(settings.momentum) * velocity + step
            vector -= np.float32(settings.lr) * velocity
            total += loss * len(rows)
    return vector, {"loss": total / seen}
