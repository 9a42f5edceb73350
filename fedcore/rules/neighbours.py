"""Rules that trust rows with near neighbours: `krum`, `multi_krum`, `mda`, `bulyan`.

A row far from all others loses; liars that agree among themselves are too few to win. Of rows as
near, the one nearer to all wins, then the first in the order of content. Weights are ignored: a liar writes its own.
"""

from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import BadInput, TooFewClients
from fedcore.rules.blocks import checked
from fedcore.rules.coordinate import Ranks, combined, most_honest, require
from fedcore.rules.geometry import Geometry, Shares, added, geometry, rows_of
from fedcore.types import Floats, Updates, Vector, Weights

MDA_SUBSETS = 200_000  # more are refused: the search grows with n over f


def krum(
    updates: Updates, weights: Weights | None = None, *, f: int, neighbours: int | None = None
) -> Vector:
    """The row with the least sum of squared distances to its `neighbours` nearest (n - f - 2).

    Holds against `f` liars among at least ``2 * f + 3`` clients. Slow to learn from: one client
    speaks for all. Blanchard et al. 2017, arXiv:1703.02757, section 4.
    """
    updates = checked(updates, weights)
    known = geometry(updates)
    return added(updates, known, krum_shares(known, f=f, neighbours=neighbours))


def multi_krum(
    updates: Updates,
    weights: Weights | None = None,
    *,
    f: int,
    neighbours: int | None = None,
    m: int | None = None,
) -> Vector:
    """Mean of the `m` rows (n - f) with the least sums of squared distances to their `neighbours` nearest.

    Holds against `f` liars among at least ``2 * f + 3`` clients. Blanchard et al. 2017,
    arXiv:1703.02757, section 5.
    """
    updates = checked(updates, weights)
    known = geometry(updates)
    return added(updates, known, multi_krum_shares(known, f=f, neighbours=neighbours, m=m))


def mda(updates: Updates, weights: Weights | None = None, *, f: int) -> Vector:
    """Mean of the ``n - f`` rows whose largest distance to each other is least.

    Holds against `f` liars among more than ``2 * f``. Looks at every subset: for few clients only.
    El Mhamdi et al. 2020, arXiv:2008.00742, section 4.
    """
    updates = checked(updates, weights)
    known = geometry(updates)
    return added(updates, known, mda_shares(known, f=f))


def bulyan(updates: Updates, weights: Weights | None = None, *, f: int) -> Vector:
    """Of ``n - 2 f`` rows chosen by Krum one after another, the mean of the n - 4 f nearest the median, each coordinate.

    Holds against `f` liars among at least ``4 * f + 3`` clients. El Mhamdi et al. 2018,
    arXiv:1802.07927, section 4.
    """
    updates = checked(updates, weights)
    known = geometry(updates)
    chosen, ranks = bulyan_choice(known, f=f)
    return combined(updates, ranks, rows_of(chosen))


def krum_shares(known: Geometry, *, f: int, neighbours: int | None = None) -> Shares:
    """All to one row."""
    return multi_krum_shares(known, f=f, neighbours=neighbours, m=1)


def multi_krum_shares(
    known: Geometry, *, f: int, neighbours: int | None = None, m: int | None = None
) -> Shares:
    """The same to each of the `m` rows with the least scores."""
    rows = len(known)
    require(rows, f, lambda f: krum_least(f, neighbours), "Krum")
    m = rows - f if m is None else m
    if not 1 <= m <= rows:
        raise BadInput(f"m must be from 1 to the number of rows, {rows}, got {m}; change combine.options.m")
    order = krum_order(known.distances(), rows - f - 2 if neighbours is None else neighbours)
    return _equal(rows, order[:m])


def mda_shares(known: Geometry, *, f: int) -> Shares:
    """The same to each row of the subset of least diameter; of several, the one with the least sum of squared distances."""
    rows = len(known)
    require(rows, f, most_honest, "MDA")
    if comb(rows, f) > MDA_SUBSETS:
        raise BadInput(
            f"MDA looks at every subset, and {rows} clients with f = {f} have {comb(rows, f):,}, more than "
            f"{MDA_SUBSETS:,}; choose combine.rule: multi_krum"
        )
    distances, everyone = known.distances(), np.arange(rows)
    kept = (np.delete(everyone, left_out) for left_out in combinations(range(rows), f))

    def spread(subset: NDArray[np.intp]) -> tuple[float, float]:
        among = distances[np.ix_(subset, subset)]
        return float(among.max()), float(among.sum())

    return _equal(rows, min(kept, key=spread))


def bulyan_choice(known: Geometry, *, f: int) -> tuple[Geometry, Ranks]:
    """The rows chosen, and what is averaged of them in each coordinate."""
    rows = len(known)
    require(rows, f, bulyan_least, "Bulyan")
    distances, left, chosen = known.distances(), list(range(rows)), list[int]()
    while len(chosen) < rows - 2 * f:
        among = distances[np.ix_(left, left)]
        nearest = max(1, len(left) - f - 2)  # the last rounds are too small for the formula
        chosen.append(left.pop(int(krum_order(among, nearest)[0])))
    return known.mixed(np.eye(rows)[sorted(chosen)]), Ranks(0, len(chosen), len(chosen) - 2 * f)


def krum_order(distances: Floats, neighbours: int) -> NDArray[np.intp]:
    """Rows by the sum of their `neighbours` least squared distances to others, then by that to all others."""
    if not 1 <= neighbours < len(distances):
        raise TooFewClients(neighbours + 1, len(distances), f"Krum with {neighbours} neighbours")
    others = distances + np.diag(np.full(len(distances), np.inf))
    scores = np.sort(others, axis=1)[:, :neighbours].sum(axis=1)
    return np.lexsort((distances.sum(axis=1), scores))


def bulyan_least(f: int) -> int:
    """Rows that Bulyan needs."""
    return 4 * f + 3


def krum_least(f: int, neighbours: int | None) -> int:
    """Rows that Krum needs: the paper's 2 f + 3; with a neighbour count of one's own, a majority."""
    return 2 * f + 3 if neighbours is None else max(2 * f + 1, neighbours + 1)


def _equal(rows: int, chosen: NDArray[np.intp]) -> Shares:
    shares = np.zeros(rows)
    shares[chosen] = 1.0
    return Shares(shares)
