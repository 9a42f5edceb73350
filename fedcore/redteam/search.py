"""Attacks that look for the worst they can do: against our own pipeline, or within the honest spread.

An attack that searches is the honest test of a rule: it knows the aggregation and tries it.
"""

from collections.abc import Callable

import numpy as np

from fedcore.redteam.rows import Aggregate, Rng, alie_z, deviation_of, mean_of, repeated
from fedcore.types import Floats, Updates

_COARSE = tuple(np.geomspace(0.05, 100.0, 12))
_FINER = 3  # halvings of the distance to the neighbours of the best
_SAFELY = 1 - 1e-6  # float32 rows must not cross the limit that was solved in float64


def optimal_ipm(honest: Updates, own: Updates, *, rng: Rng, aggregate: Aggregate) -> Updates:
    """IPM with the tau that moves `aggregate` furthest from the honest mean; at least as far as 0.5 does."""
    mean = mean_of(honest)
    return _worst(lambda tau: repeated(-tau * mean, own), honest, aggregate, (0.5,))


def optimal_alie(honest: Updates, own: Updates, *, rng: Rng, aggregate: Aggregate) -> Updates:
    """ALIE with the z that moves `aggregate` furthest from the honest mean; at least as far as the usual z."""
    mean, spread = mean_of(honest), deviation_of(honest)
    usual = alie_z(len(honest) + len(own), len(own))
    return _worst(lambda z: repeated(mean - z * spread, own), honest, aggregate, (usual,))


def min_max(honest: Updates, own: Updates, *, rng: Rng, aggregate: Aggregate) -> Updates:
    """The honest mean, moved against the deviations until it is as far from some honest row as two of these are.

    The largest step is the root of a quadratic for each row, so nothing is bisected. Shejwalkar and
    Houmansadr 2021, "Manipulating the Byzantine", the min-max attack.
    """
    mean, direction = mean_of(honest), _direction(honest)
    offsets = mean - honest
    limit = _squared_distances(honest).max()
    steps = [_largest_step(direction, offset, offset @ offset - limit) for offset in offsets]
    return repeated(mean + _SAFELY * min(steps) * direction, own)


def min_sum(honest: Updates, own: Updates, *, rng: Rng, aggregate: Aggregate) -> Updates:
    """The same with sums: of squared distances to all honest rows, no more than the worst honest row has.

    Shejwalkar and Houmansadr 2021, the min-sum attack.
    """
    mean, direction = mean_of(honest), _direction(honest)
    offsets = mean - honest
    limit = _squared_distances(honest).sum(axis=1).max()
    room = ((offsets**2).sum() - limit) / len(honest)
    return repeated(mean + _SAFELY * _largest_step(direction, offsets.mean(axis=0), room) * direction, own)


def _worst(
    rows_of: Callable[[float], Updates], honest: Updates, aggregate: Aggregate, usual: tuple[float, ...]
) -> Updates:
    """Of the rows at many sizes, those that move `aggregate` furthest: a coarse grid, then closer around its best."""
    truth = mean_of(honest)

    def damage(size: float) -> float:
        moved = aggregate(np.concatenate([honest, rows_of(size)])) - truth
        return float(np.sqrt(moved @ moved))

    tried = {size: damage(size) for size in (*usual, *_COARSE)}
    ratio = _COARSE[1] / _COARSE[0]
    for _ in range(_FINER):
        ratio = ratio**0.5
        best = max(tried, key=lambda size: (tried[size], size))
        tried |= {size: damage(size) for size in (best / ratio, best * ratio)}
    return rows_of(max(tried, key=lambda size: (tried[size], size)))


def _direction(honest: Updates) -> Floats:
    """Against the standard deviation of each coordinate, of length one; zero where all rows agree."""
    spread = -deviation_of(honest)
    return spread / (np.sqrt(spread @ spread) or 1.0)


def _squared_distances(rows: Updates) -> Floats:
    """Squared distances (h, h) between all rows, by difference."""
    wide = rows.astype(np.float64)
    return np.stack([((wide - row) ** 2).sum(axis=1) for row in wide])


def _largest_step(direction: Floats, offset: Floats, room: float) -> float:
    """The largest t with ``|t · direction|² + 2 t direction · offset + room <= 0``; `room` is not above zero."""
    square, half = float(direction @ direction), float(direction @ offset)
    return (-half + np.sqrt(max(0.0, half * half - square * room))) / square if square else 0.0
