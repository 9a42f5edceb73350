"""Skellam noise on integers: the difference of two Poisson numbers, and closed under sums.

Clients that each add a share give a sum with exactly the noise that one server would have added,
which no share of a discrete Gaussian does. Agarwal, Kairouz, Liu 2021, arXiv:2110.04995.

What is exact: a Poisson number is drawn by inversion with 128 random bits, compared as integers
with a table of integers. The table comes from the ratios of neighbouring probabilities, in integer
arithmetic from the mode outwards, so no exponential or factorial is ever rounded. What is rounded
is the table itself: each draw is within 2^-100 in total variation of a Poisson number, hence d
coordinates over T rounds within ``d · T · PARTS · 2^-99`` of Skellam noise: an addition to δ.
"""

from bisect import bisect_right
from fractions import Fraction
from functools import lru_cache
from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import BadInput
from fedcore.transforms.coins import Bits, Integers

PRECISION = 176  # binary digits of the mode's weight: the others have as many or fewer
DIGITS = 128
TABLED = 2**22  # the largest mean with a table of its own
PARTS = 64  # a larger mean is a sum of at most so many equal ones


class Table(NamedTuple):
    """Where a uniform 128-bit number must lie for each value: below ``edges[i]``, ``first + i``."""

    first: int
    edges: tuple[int, ...]
    high: NDArray[np.uint64]  # the upper 64 bits of the edges


def skellam(size: int, variance: Fraction, bits: Bits) -> Integers:
    """`size` integers of mean 0 and `variance`: differences of two Poisson numbers of half of it.

    The sum of n independent draws of ``variance / n`` is distributed as one of `variance`. Raises
    `BadInput` for a variance that is not above zero or exceeds 2^29 square steps.
    """
    if not 0 < variance <= 2 * PARTS * TABLED:
        raise BadInput(
            "Skellam noise needs a variance above 0 and of at most 2^29 square steps, got "
            f"{float(min(variance, Fraction(10**300))):g}; use a coarser grid"
        )
    return poisson(size, variance / 2, bits) - poisson(size, variance / 2, bits)


def poisson(size: int, mean: Fraction, bits: Bits) -> Integers:
    """`size` Poisson numbers of `mean`, each within ``parts · 2^-100`` of exact in total variation."""
    parts = max(1, ceil(mean / TABLED))
    table = poisson_table(mean / parts)
    drawn = np.zeros(size, np.int64)
    for _ in range(parts):
        drawn += table.first + _inverted(table, size, bits)
    return drawn


@lru_cache(maxsize=16)
def poisson_table(mean: Fraction) -> Table:
    """The cumulated probabilities of a Poisson number of `mean` as 128-bit integers.

    From weight 2^176 at the mode, each next weight is ``p(k+1) = p(k) · mean / (k + 1)`` or ``p(k−1) =
    p(k) · k / mean`` rounded down, until nothing is left. Ratios are at most 1, so the i-th weight
    is short by at most i, and N weights by at most N² of more than 2^176: for the N < 2^17 of the
    largest mean, less than 2^-140 of the whole, and the cut tails are less than that too. Edges
    rounded to 128 bits add N · 2^-128 at most.
    """
    above, under = mean.as_integer_ratio()
    mode = above // under
    up, down = [1 << PRECISION], [1 << PRECISION]
    while up[-1]:
        up.append(up[-1] * above // (under * (mode + len(up))))
    for value in range(mode, 0, -1):
        down.append(down[-1] * value * under // above)
        if not down[-1]:
            break
    weights = [*reversed(down[1:]), *up]
    cumulated, edges = 0, []
    total = sum(weights)
    for weight in weights[:-1]:
        cumulated += weight
        edges.append((cumulated << DIGITS) // total)
    high = np.array([min(edge >> 64, 2**64 - 1) for edge in edges], np.uint64)
    return Table(mode - len(down) + 1, tuple(edges), high)


def _inverted(table: Table, size: int, bits: Bits) -> Integers:
    """For each of `size` uniform 128-bit numbers, how many edges are not above it."""
    high = np.frombuffer(bits(8 * size), np.uint64)
    low = np.frombuffer(bits(8 * size), np.uint64)
    found = np.searchsorted(table.high, high, side="left")
    unsure = np.flatnonzero(found != np.searchsorted(table.high, high, side="right"))
    for place in unsure:  # the upper halves are equal: one number in 2^64 for each edge
        found[place] = bisect_right(table.edges, (int(high[place]) << 64) | int(low[place]))
    return found.astype(np.int64)
