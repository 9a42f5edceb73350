"""Compiled kernels, cached beside this file: one pass over memory, many columns at a time.

Each works on a block of columns without the interpreter's lock, so that blocks run in
threads. Nothing here may be reordered by the compiler (no fast-math): the bytes are those of numpy.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numba
import numpy as np
from numpy.lib.stride_tricks import as_strided

Kernel = TypeVar("Kernel", bound=Callable[..., Any])
LANES = 64  # columns sorted side by side: their values stay in the first-level cache
SPAN = 32768  # columns summed side by side


def compiled(function: Kernel) -> Kernel:
    """`function`, compiled when it is first called and kept on disk."""
    return numba.njit(cache=True, nogil=True)(function)  # type: ignore[return-value]


class Rows(NamedTuple):
    """A matrix as one stretch of memory: row i is the `width` values from ``i * step`` on.

    The compiler knows such a row to be contiguous, and works on many values at a time; of a slice
    of columns it does not, and works on one.
    """

    memory: Any
    step: int
    rows: int
    width: int


def as_rows(matrix: Any) -> Rows:
    """`matrix` (rows, columns) as `Rows`, not copied. Its rows must be contiguous and lie one after another."""
    rows, width = matrix.shape
    step = matrix.strides[0] // matrix.itemsize if rows > 1 else width
    reach = (rows - 1) * step + width if rows else 0
    return Rows(as_strided(matrix, (reach,), (matrix.itemsize,), writeable=False), step, rows, width)


@compiled
def stretch(rows: Rows, i: int, left: int, right: int) -> Any:
    """Row i from column `left` to `right`, a view."""
    return rows.memory[i * rows.step + left : i * rows.step + right]


@compiled
def add_products(matrix: Rows, used: Any, weights: Any, left: int, summed: Any, sizes: Any) -> None:
    """Add weight · row for the `used` rows of `matrix` from column `left` on, and sizes, four rows at a time."""
    fours, width = len(used) // 4 * 4, min(SPAN, matrix.width - left)
    for k in range(0, fours, 4):
        a, b, c, d = used[k], used[k + 1], used[k + 2], used[k + 3]
        p, q, r, s = weights[a], weights[b], weights[c], weights[d]
        pp, qq, rr, ss = np.float32(p), np.float32(q), np.float32(r), np.float32(s)
        x, y = stretch(matrix, a, left, left + width), stretch(matrix, b, left, left + width)
        z, t = stretch(matrix, c, left, left + width), stretch(matrix, d, left, left + width)
        for j in range(width):
            summed[j] += (p * x[j] + q * y[j]) + (r * z[j] + s * t[j])
            sizes[j] += (abs(pp * x[j]) + abs(qq * y[j])) + (abs(rr * z[j]) + abs(ss * t[j]))
    for k in range(fours, len(used)):
        a = used[k]
        p, x = weights[a], stretch(matrix, a, left, left + width)
        pp = np.float32(p)
        for j in range(width):
            summed[j] += p * x[j]
            sizes[j] += abs(pp * x[j])


@compiled
def certified_mean(
    matrix: Rows, used: Any, weights: Any, beside: Rows, beside_weights: Any, total: float
) -> tuple[Any, Any]:
    """As `fedcore.rules.mean.certified_mean`: the mean of a block, and where its rounding is open.

    Sizes are summed in float32, which is off by less than one part in a thousand for 4,000 rows;
    what underflows there is worth less than the constant that is added.
    """
    columns = matrix.width
    found = np.empty(columns, np.float32)
    open_ = np.zeros(columns, np.bool_)
    terms = len(used) + beside.rows
    over = 1 / total  # a product with it is off by twice as much as a quotient, and many times faster
    reach = (terms + 8) * (1 + terms * 2.0**-22) * 2.0**-53 * over
    summed, sizes = np.empty(SPAN), np.empty(SPAN, np.float32)
    every = np.arange(beside.rows)
    for left in range(0, columns, SPAN):
        summed[:] = 0.0
        sizes[:] = np.float32(0)
        add_products(matrix, used, weights, left, summed, sizes)
        add_products(beside, every, beside_weights, left, summed, sizes)
        for j in range(min(SPAN, columns - left)):
            quotient = summed[j] * over
            margin = (np.float64(sizes[j]) + 2.0**-120) * reach + abs(quotient) * 2.0**-51
            below, above = np.float32(quotient - margin), np.float32(quotient + margin)
            found[left + j] = below + np.float32(0)
            open_[left + j] = not below == above  # noqa: SIM201  (NaN is open)
    return found, np.flatnonzero(open_)


@compiled
def centred(matrix: Rows, places: Any, centre: Any, wide: Any) -> None:
    """Fill `wide` (rows, columns) float64 with the rows `places` of `matrix` minus `centre`."""
    for i, place in enumerate(places):
        row = stretch(matrix, place, 0, matrix.width)
        for j in range(matrix.width):
            wide[i, j] = np.float64(row[j]) - np.float64(centre[j])


@compiled
def sort_lanes(lanes: Any, pairs: Any) -> None:
    """Sort each of the LANES columns of `lanes` (rows, LANES) by the network `pairs`, in place."""
    for c in range(len(pairs)):
        upper, lower = lanes[pairs[c, 0]], lanes[pairs[c, 1]]
        for j in range(LANES):
            a, b = upper[j], lower[j]
            upper[j] = a if a < b else b
            lower[j] = b if a < b else a


@compiled
def load_lanes(matrix: Rows, left: int, lanes: Any, odd: Any) -> None:
    """Copy the columns from `left` on into `lanes`; `odd` (LANES,) stays zero while all are finite."""
    width = min(LANES, matrix.width - left)
    if width < LANES:
        lanes[:] = 0
    for i in range(len(lanes)):
        row, lane = stretch(matrix, i, left, left + width), lanes[i]
        for j in range(width):
            lane[j] = row[j]
            odd[j] += row[j] - row[j]  # one a lane: a sum over all lanes is added value by value


@compiled
def ranked_mean(matrix: Rows, pairs: Any, low: int, high: int) -> tuple[Any, bool]:
    """Mean of each column's `low`-th to `high`-th smallest value, summed in that order in float64."""
    columns = matrix.width
    found = np.empty(columns, np.float32)
    lanes, summed = np.empty((matrix.rows, LANES), np.float32), np.empty(LANES)
    odd = np.zeros(LANES, np.float32)
    for left in range(0, columns, LANES):
        load_lanes(matrix, left, lanes, odd)
        sort_lanes(lanes, pairs)
        summed[:] = 0.0
        for i in range(low, high):
            for j in range(LANES):
                summed[j] += np.float64(lanes[i, j])
        for j in range(min(LANES, columns - left)):
            found[left + j] = np.float32(summed[j] / (high - low))
    return found, bool(np.all(odd == 0))


@compiled
def nearest_mean(matrix: Rows, pairs: Any, count: int) -> tuple[Any, bool]:
    """Mean of the `count` values nearest to each column's median, summed from the smallest on in float64."""
    rows, columns = matrix.rows, matrix.width
    found = np.empty(columns, np.float32)
    lanes, odd = np.empty((rows, LANES), np.float32), np.zeros(LANES, np.float32)
    for left in range(0, columns, LANES):
        load_lanes(matrix, left, lanes, odd)
        sort_lanes(lanes, pairs)
        for j in range(min(LANES, columns - left)):
            middle = (np.float64(lanes[(rows - 1) // 2, j]) + np.float64(lanes[rows // 2, j])) / 2
            first = 0
            while first + count < rows and lanes[first + count, j] - middle < middle - lanes[first, j]:
                first += 1
            total = 0.0
            for i in range(first, first + count):
                total += np.float64(lanes[i, j])
            found[left + j] = np.float32(total / count)
    return found, bool(np.all(odd == 0))
