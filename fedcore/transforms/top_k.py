"""Sparsification: an update keeps its largest coordinates, the others are zero."""

from math import ceil
from typing import Any

import numpy as np

from fedcore.errors import BadInput
from fedcore.types import Transform, Vector


def top_k(share: float) -> Transform:
    """Keep the ``ceil(share · d)`` coordinates that are largest in magnitude; of equal ones, the first.

    Biased, and without memory of what was left out. Raises `BadInput` unless `share` is in (0, 1].
    Aji and Heafield 2017, arXiv:1704.05021.
    """
    if not 0 < share <= 1:
        raise BadInput(f"the share of coordinates to keep must be above 0 and at most 1, got {share!r}")

    def apply(update: Vector, state: Any, rng: np.random.Generator) -> tuple[Vector, Any]:
        kept = np.argsort(-np.abs(update), kind="stable")[: ceil(share * update.size)]
        sparse = np.zeros_like(update)
        sparse[kept] = update[kept]
        return sparse, state

    return Transform(init=lambda: (), apply=apply, bound=lambda incoming: incoming)
