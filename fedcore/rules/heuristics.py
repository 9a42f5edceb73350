"""Heuristics, never a default: `foolsgold`, `fltrust`, `flame`. Adaptive attacks on each are known.

They are here to be compared with. Weights are ignored: a liar writes its own.
"""

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import BadInput
from fedcore.rules.blocks import checked
from fedcore.rules.coordinate import require
from fedcore.rules.geometry import Geometry, Shares, added, geometry
from fedcore.types import Floats, Updates, Vector, Weights

TINY = np.finfo(np.float64).tiny


def foolsgold(updates: Updates, weights: Weights | None = None) -> Vector:
    """Heuristic. Mean of the rows, each weighted by how little it resembles another; zero if all resemble.

    Against many liars that push the same way. Of the paper's memory of all rounds it uses the last:
    the round keeps no matrix. Fung et al. 2020, arXiv:1808.04866, algorithm 1.
    """
    updates = checked(updates, weights)
    known = geometry(updates)
    return added(updates, known, foolsgold_shares(known))


def fltrust(updates: Updates, weights: Weights | None = None, *, root: Vector) -> Vector:
    """Heuristic. Mean of the rows brought to the length of `root`, each weighted by its cosine to it.

    `root` is the update the server trained itself on data it trusts; rows that point away from it
    count nothing. Cao et al. 2021, arXiv:2012.13995, equation 4.
    """
    updates = checked(updates, weights)
    known = geometry(updates, [root])
    return added(updates, known, fltrust_shares(known), [root])


def flame(
    updates: Updates,
    weights: Weights | None = None,
    *,
    noise: float = 0.001,
    rng: np.random.Generator,
) -> Vector:
    """Heuristic. Mean of the majority that points the same way, cut to the median length, with noise added.

    The standard deviation of the noise is `noise` times the median length. The majority is the
    first cluster of single linkage by cosine that more than half of the rows are in, which is what
    HDBSCAN finds when no smaller cluster and no noise outside counts, as the paper asks it.
    Nguyen et al. 2022, arXiv:2101.02281, algorithm 1.
    """
    updates = checked(updates, weights)
    known = geometry(updates)
    shares = flame_shares(known, noise=noise)
    return with_noise(added(updates, known, shares), shares, rng)


def foolsgold_shares(known: Geometry) -> Shares:
    """What the paper calls the clients' learning rates."""
    require(len(known), 0, lambda f: 2, "FoolsGold")
    alike = _cosines(known.from_zero())
    np.fill_diagonal(alike, -np.inf)
    most = alike.max(axis=1)
    pardon = np.where(most[None, :] > most[:, None], most[:, None] / np.maximum(most[None, :], TINY), 1.0)
    np.fill_diagonal(alike, 0.0)
    alike *= np.maximum(pardon, 0.0)
    np.fill_diagonal(alike, -np.inf)
    trust = np.clip(1 - alike.max(axis=1), 0.0, 1.0)
    if trust.max() < 1e-9:  # all point the same way
        return Shares(np.zeros(len(known)), total=Fraction(1), notes={"trusted": 0})
    trust = np.clip(trust / trust.max(), 1e-12, 1 - 1e-12)
    rates = np.clip(np.log(trust / (1 - trust)) + 0.5, 0.0, 1.0)
    return Shares(rates, notes={"trusted": int((rates > 0).sum())})


def fltrust_shares(known: Geometry) -> Shares:
    """Trust in each row over its length, for the server's own update as the one extra vector."""
    products = known.from_zero(extras=True)
    lengths = np.sqrt(np.maximum(np.diagonal(products), 0.0))
    if not lengths[-1]:
        raise BadInput("the root update is zero, nothing can be trusted by it; train it on more data")
    trust = np.maximum(_cosines(products)[:-1, -1], 0.0)
    shares = trust * lengths[-1] / np.maximum(lengths[:-1], TINY)
    total = float(trust.sum())
    return Shares(shares, total=Fraction(total or 1.0), notes={"trusted": int((trust > 0).sum())})


def flame_shares(known: Geometry, *, noise: float = 0.001) -> Shares:
    """The majority's rows, each cut to the median length of all."""
    require(len(known), 0, lambda f: 3, "FLAME")
    if not (np.isfinite(noise) and noise >= 0):
        raise BadInput(f"noise must be finite and 0 or more, got {noise!r}; change combine.options.noise")
    products = known.from_zero()
    lengths = np.sqrt(np.maximum(np.diagonal(products), 0.0))
    admitted, limit = majority(1 - _cosines(products)), float(np.median(lengths))
    shares = np.where(admitted, np.minimum(1.0, limit / np.maximum(lengths, TINY)), 0.0)
    return Shares(
        shares, None, Fraction(int(admitted.sum())), noise * limit, {"admitted": int(admitted.sum())}
    )


def majority(distances: Floats) -> NDArray[np.bool_]:
    """The first cluster of single linkage that holds more than half of the rows; all linked as near are in."""
    rows = len(distances)
    for limit in np.unique(distances):
        linked = distances <= limit
        for first in range(rows):
            reached: NDArray[np.bool_] = linked[first]
            while (more := linked[reached].any(axis=0)).sum() > reached.sum():
                reached = more
            if 2 * reached.sum() > rows:
                return reached
    raise AssertionError("all rows are linked at the largest distance")


def with_noise(vector: Vector, shares: Shares, rng: np.random.Generator) -> Vector:
    """`vector` with the noise that `shares` ask for."""
    if not shares.noise:
        return vector
    return (vector + rng.normal(0.0, shares.noise, vector.shape)).astype(np.float32)


def _cosines(products: Floats) -> Floats:
    """Cosines between rows; 0 where one has no length."""
    lengths = np.sqrt(np.maximum(np.diagonal(products), 0.0))
    scale = np.maximum(lengths[:, None] * lengths[None, :], TINY)
    cosines: Floats = np.clip(products / scale, -1.0, 1.0)
    return cosines
