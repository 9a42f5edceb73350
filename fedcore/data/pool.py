"""Moments of many sites added up one site at a time, without rounding: memory of a column, not of the sites.

Sums are held as expansions, several float64 that stand for their exact total (Shewchuk 1997, theorem 10),
here one array a component. What is added up does not depend on the order of the sites.
"""

from fractions import Fraction
from math import fsum, isfinite

import numpy as np

from fedcore.data.statistics import Moments
from fedcore.sums import two_product, two_sum
from fedcore.types import Floats


class Sums:
    """Exact sums of float64, one a column: `add` arrays (k,), then ask for each column's `totals`."""

    def __init__(self, width: int) -> None:
        self._parts: list[Floats] = [np.zeros(width)]

    def add(self, values: Floats) -> None:
        """Add `values` (k,). What is too large shows in the totals as a number that is not finite."""
        for number, part in enumerate(self._parts):
            self._parts[number], values = two_sum(part, values)
            if not values.any():
                return
        self._parts.append(values)

    def totals(self) -> list[tuple[float, ...]]:
        """Each column's components, whose exact sum is the column's."""
        return list(zip(*(part.tolist() for part in self._parts), strict=True))


class Pool:
    """The moments of all rows of some sites, for `width` columns that are counted together."""

    def __init__(self, width: int) -> None:
        self._rows = 0
        self._first, self._second = Sums(width), Sums(width)  # of rows x mean; of m2 + rows x mean^2

    def add(self, moments: Moments) -> None:
        """Add one site's moments of these columns."""
        rows, mean = float(moments.count), np.array(moments.mean)
        self._rows += moments.count
        with np.errstate(all="ignore"):  # `moments` looks for what is not finite
            high, low = two_product(mean, mean)
            for part in two_product(mean, rows):
                self._first.add(part)
            for part in (np.array(moments.m2), *two_product(high, rows), *two_product(low, rows)):
                self._second.add(part)

    def moments(self) -> Moments:
        """Rows, means and squared deviations of all sites together. Raises `OverflowError` for too large numbers.

        The squares are ``second - 2 mean first + rows mean^2``, rounded once (Chan, Golub & LeVeque 1983,
        equation 1.3, which is safe where nothing is rounded in between).
        """
        rows, means, squares = max(self._rows, 1), [], []
        for first, second in zip(self._first.totals(), self._second.totals(), strict=True):
            if not all(map(isfinite, (*first, *second))):
                raise OverflowError("a sum is not finite")
            mean = fsum(first) / rows
            exact = Fraction(mean)
            square = _exactly(second) - 2 * exact * _exactly(first) + rows * exact**2
            means.append(mean)
            squares.append(max(float(square), 0.0))
        return Moments(self._rows, 0, tuple(means), tuple(squares))


def _exactly(parts: tuple[float, ...]) -> Fraction:
    return sum(map(Fraction, parts), Fraction(0))
