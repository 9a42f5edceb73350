"""What the dense models of every framework share: their first parameters, their batches, their clipping.

Every framework lays a dense network out as ``0.weight (out, in)``, ``0.bias (out,)``, ``1.weight`` …
and starts from the same numbers, so that the same training gives the same model.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fedcore.adapters.architecture import layout, start
from fedcore.adapters.model import ModelSpec, Training
from fedcore.adapters.zoo import layers
from fedcore.types import Floats, Layout, Vector


@lru_cache(maxsize=64)
def built_in_layout(spec: ModelSpec) -> Layout:
    """Layout of a built-in model. Raises `UnknownName` and `BadConfig` as `zoo.layers` does."""
    return layout(layers(spec))


def built_in_start(spec: ModelSpec, rng: np.random.Generator) -> Vector:
    """First parameters (d,) of a built-in model."""
    return start(layers(spec), rng)


def batches(rows: int, size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Row numbers of one epoch in random order, `size` at a time; the last batch may be shorter."""
    order = rng.permutation(rows)
    return [order[start : start + size] for start in range(0, rows, size)]


def epochs(rows: int, settings: Training, rng: np.random.Generator) -> Iterator[list[np.ndarray]]:
    """The batches of each epoch that `settings` asks for; with `steps` the last epoch ends where they are used up."""
    if settings.steps is None:
        for _ in range(settings.epochs):
            yield batches(rows, settings.batch_size, rng)
        return
    stream, left = settings.stream, settings.steps
    number, skip = divmod(stream.first if stream else 0, -(-rows // settings.batch_size))
    while left > 0:
        order = stream.order(number) if stream else rng
        epoch = batches(rows, settings.batch_size, order)[skip : skip + left]
        number, skip, left = number + 1, 0, left - len(epoch)
        yield epoch


def clip_factors(norms: Floats, clip: float) -> Floats:
    """What rows with gradients of these L2 `norms` are multiplied by, so that none exceeds `clip`, rounding included."""
    return np.minimum(1.0, clip / np.maximum(norms, np.finfo(np.float64).tiny)) * (1 - 2.0**-48)


def clipped_one_by_one(
    gradient: Callable[[NDArray[np.float32], NDArray[np.float32]], Vector],
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    clip: float,
    size: int,
) -> Floats:
    """What `Model.clipped_sum` gives (`size`,), from `gradient` of one row after another: slow, and right for any model."""
    summed = np.zeros(size)
    for row in range(len(x)):
        own = gradient(x[row : row + 1], y[row : row + 1]).astype(np.float64)
        length = np.linalg.norm(own)
        if np.isfinite(length):
            summed += own * clip_factors(np.array([length]), clip)
    return summed
