"""Weighted sums without error: what makes a mean independent of the order of its rows.

A mean is defined here as *the float32 nearest to the exact value of* Σ wᵢxᵢ / T, ties to even.
That value does not depend on order, blocks, threads or machine, so neither does the result.

`ExactSum` adds rows one at a time in O(params) memory. Each product is cut at fixed powers of 2³²
into a few exact pieces, and each piece is added to an accumulator of its own that holds only
multiples of its power and never fills: as Demmel and Nguyen 2015, doi:10.1109/TC.2014.2345391,
with as many accumulators as the values need, so that nothing is dropped.
"""

from fractions import Fraction
from math import frexp

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import BadInput
from fedcore.sums import two_sum
from fedcore.types import Floats, Updates, Vector

PIECE = 32  # bits of a piece; the other 53 - 32 of its accumulator are room for carries
_CARRY_AFTER = 2**19  # additions
_WEIGHT_BITS = 29  # a weight of so many bits times 24 bits of float32 is exact in float64
TOTAL_BITS = 28  # a total of so many bits times the middle of two float32 is exact in float64
_CHUNK = 2**14  # columns at a time: a chunk stays in the processor's cache


class ExactSum:
    """The exact Σ wᵢxᵢ of the rows added so far, (params,); `mean` rounds it, once.

    >>> total = ExactSum(1)
    >>> for value in (1e8, 1e-8, -1e8):
    ...     total.add(np.array([value], np.float32), 1.0)
    >>> float(total.mean(1)[0]) == float(np.float32(1e-8))
    True
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._pieces: dict[int, Floats] = {}  # level -> multiples of 2**(PIECE * level)
        self._added = 0

    def add(self, rows: Updates | Vector, weights: Floats | float) -> None:
        """Add ``weight · row`` for each row. Raises `BadInput` for another shape and for what is not finite."""
        rows = rows.reshape(-1, rows.shape[-1])
        if rows.shape[1] != self._size:
            raise BadInput(
                f"a row must have {self._size} parameters, got {rows.shape[1]}; check the model's layout"
            )
        for part in _halves(np.broadcast_to(weights, len(rows))):
            if part.any():
                for start in range(0, self._size, _CHUNK):
                    chunk = rows[:, start : start + _CHUNK]
                    self._add(chunk.astype(np.float64) * part[:, None], start)
                self._added += len(rows)
        if self._added >= _CARRY_AFTER:
            self._carry()

    def mean(self, total: Fraction | float) -> Vector:
        """The float32 nearest to the exact sum divided by `total`, which is above zero."""
        self._carry()
        exact = Fraction(total)
        high, low, whole = self._leading()
        quotient = high / float(exact)
        margin = np.abs(quotient) * 2.0**-50  # high is off by 2**-53 of itself, and so is the division
        below, above = as_float32(quotient - margin), as_float32(quotient + margin)
        open_ = np.flatnonzero(below != above)
        under, over = below[open_], above[open_]
        middle = (under.astype(np.float64) + over) / 2
        rest = self._over(open_, middle, (high[open_], low[open_], whole[open_]), exact)
        below[open_] = np.where(rest == 0, as_float32(middle), np.where(rest > 0, over, under))
        return below + np.float32(0)

    def _add(self, product: Floats, start: int) -> None:
        size = float(np.abs(product).max())
        if not np.isfinite(size):
            raise BadInput("updates must be finite; refuse what is not before it is combined")
        level = frexp(size)[1] // PIECE
        while product.any():
            taken = _multiples(product, level)
            self._level(level)[start : start + product.shape[1]] += taken.sum(axis=0)
            product -= taken
            level -= 1

    def _level(self, level: int) -> Floats:
        if level not in self._pieces:
            self._pieces[level] = np.zeros(self._size)
        return self._pieces[level]

    def _carry(self) -> None:
        """Leave at most half a unit of the level above in each accumulator."""
        for level in sorted(self._pieces):
            over = _multiples(self._pieces[level], level + 1)
            if over.any():
                self._pieces[level] -= over
                self._level(level + 1)[:] += over
        self._added = 0

    def _leading(self) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """The sum's leading 106 bits as two numbers, and where they are all there is."""
        high, low = np.zeros(self._size), np.zeros(self._size)
        whole = np.ones(self._size, dtype=np.bool_)
        for level in sorted(self._pieces, reverse=True):
            high, error = two_sum(high, self._pieces[level])
            low, rest = two_sum(low, error)
            whole &= rest == 0
        return *two_sum(high, low), whole

    def _over(
        self,
        places: NDArray[np.intp],
        middle: Floats,
        leading: tuple[Floats, Floats, NDArray[np.bool_]],
        total: Fraction,
    ) -> Floats:
        """Numbers with the signs of (exact sum at `places`) - middle · total; `leading` as of `_leading` there."""
        high, low, whole = leading
        # The product is exact for a total of few bits, and by Sterbenz' lemma so is the difference.
        known = whole if bits(total) <= TOTAL_BITS else np.zeros(len(places), np.bool_)
        rest = np.where(known, (high - middle * float(total)) + low, 0.0)
        for k in np.flatnonzero(~known):
            value = sum((Fraction(float(piece[places[k]])) for piece in self._pieces.values()), Fraction(0))
            gap = value - Fraction(float(middle[k])) * total
            rest[k] = (gap > 0) - (gap < 0)
        return rest


def as_float32(values: Floats) -> Vector:
    """`values` rounded to float32; what is too large becomes infinite, silently: callers check."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _halves(weights: Floats) -> tuple[Floats, Floats]:
    """`weights` as two numbers each, whose products with float32 are exact in float64."""
    mantissas, exponents = np.frexp(weights)
    if np.abs(exponents).max() > 300:
        raise BadInput(f"weights must be zero or between 1e-90 and 1e90, got {weights}; scale them")
    upper = np.ldexp(np.rint(np.ldexp(mantissas, _WEIGHT_BITS)), exponents - _WEIGHT_BITS)
    return upper, weights - upper


def _multiples(values: Floats, level: int) -> Floats:
    """`values` rounded to multiples of 2**(PIECE · level): adding a large number pushes the rest out."""
    large = 1.5 * 2.0 ** (PIECE * level + 52)
    return (values + large) - large


def are_short(weights: Floats) -> bool:
    """Whether the products of all `weights` with any float32 are exact in float64."""
    scaled = np.ldexp(np.frexp(weights)[0], _WEIGHT_BITS)
    return bool(np.all(scaled == np.rint(scaled)))


def bits(value: Fraction) -> int:
    """How many binary digits `value` has, 0 bits at its end not counted; many if it never ends."""
    if value.denominator & (value.denominator - 1):
        return 10_000
    return (value.numerator // (value.numerator & -value.numerator)).bit_length()
