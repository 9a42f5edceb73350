"""Clipping: the last thing that changes an update's values before noise."""

from typing import Any

import numpy as np

from fedcore.errors import BadConfig, BadInput
from fedcore.types import Transform, Vector


def norm(update: Vector) -> float:
    """L2 norm, accumulated in float64."""
    wide = update.astype(np.float64)
    return float(np.sqrt(wide @ wide))


def clip(limit: float) -> Transform:
    """Scale an update down to L2 norm `limit`; leave shorter ones alone, zero included.

    The norm of the float32 result never exceeds `limit`, rounding included. Raises `BadInput`
    for an update that is not finite: it has no norm. Abadi et al. 2016, arXiv:1607.00133, algorithm 1.
    """
    if not (np.isfinite(limit) and limit > 0):
        raise BadConfig("privacy.clip", limit, "must be finite and above zero")

    def apply(update: Vector, state: Any, rng: np.random.Generator) -> tuple[Vector, Any]:
        length = norm(update)
        if not np.isfinite(length):
            raise BadInput("cannot clip an update that is not finite; lower local.lr")
        if length <= limit:
            return update, state
        shrink = 1.0
        while length * shrink > limit or norm(clipped := update * np.float32(shrink)) > limit:
            shrink = min(shrink * (1 - 2**-22), limit / length)
        return clipped, state

    return Transform(init=lambda: (), apply=apply, bound=lambda incoming: min(incoming, limit))
