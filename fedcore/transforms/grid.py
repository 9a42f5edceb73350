"""A grid in the unit of the updates: each coordinate a whole multiple of a step that is a power of two.

Such a step makes everything exact: a float32 cut down to it is a float32, and float64 holds the sum of as
many as 2^53 steps. What noise goes on the grid is in `discrete.py` and `skellam.py`.
"""

from math import frexp
from typing import Any

import numpy as np

from fedcore.errors import BadInput
from fedcore.transforms.coins import Integers
from fedcore.types import Floats, Transform, Vector

EXACT = 2**53


def on_grid(step: float) -> Transform:
    """Cut each coordinate towards zero to a multiple of `step`: no norm can grow, and the bound stays.

    Raises `BadInput` unless `step` is a power of two.
    """
    if not 0 < step < float("inf") or frexp(step)[0] != 0.5:
        raise BadInput(f"a grid's step must be a power of two, got {step!r}")

    def apply(update: Vector, state: Any, rng: np.random.Generator) -> tuple[Vector, Any]:
        return (np.trunc(update.astype(np.float64) / step) * step).astype(np.float32), state

    return Transform(init=lambda: (), apply=apply, bound=lambda incoming: incoming)


def whole_steps(total: Floats, step: float) -> Integers:
    """A sum (d,) of updates on the grid in steps of it. Raises `BadInput` for one that left the grid."""
    steps = total / step
    if not (
        np.isfinite(steps).all() and (np.abs(steps) < EXACT).all() and np.array_equal(steps, np.rint(steps))
    ):
        raise BadInput(
            "the sum of updates is not on the grid that whole noise is made for; use a coarser grid"
        )
    return steps.astype(np.int64)
