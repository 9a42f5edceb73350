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
SPAN = 2048  # columns summed side by side: of a hundred rows, what fits the second-level cache


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
def weighed(matrix: Rows, used: Any, weights: Any, k: int, left: int, right: int) -> Any:
    """The `k`-th of the `used` rows from column `left` to `right`, and its weight twice: none past the last."""
    i = used[min(k, len(used) - 1)]
    weight = weights[i] if k < len(used) else 0.0
    return stretch(matrix, i, left, right), weight, np.float32(weight)


@compiled
def add_products(matrix: Rows, used: Any, weights: Any, left: int, summed: Any, sizes: Any) -> None:
    """Add weight · row for the `used` rows of `matrix` from column `left` on, and sizes, ten rows at a time."""
    right = left + min(SPAN, matrix.width - left)
    for k in range(0, len(used), 10):
        r0, w0, v0 = weighed(matrix, used, weights, k, left, right)
        r1, w1, v1 = weighed(matrix, used, weights, k + 1, left, right)
        r2, w2, v2 = weighed(matrix, used, weights, k + 2, left, right)
        r3, w3, v3 = weighed(matrix, used, weights, k + 3, left, right)
        r4, w4, v4 = weighed(matrix, used, weights, k + 4, left, right)
        r5, w5, v5 = weighed(matrix, used, weights, k + 5, left, right)
        r6, w6, v6 = weighed(matrix, used, weights, k + 6, left, right)
        r7, w7, v7 = weighed(matrix, used, weights, k + 7, left, right)
        r8, w8, v8 = weighed(matrix, used, weights, k + 8, left, right)
        r9, w9, v9 = weighed(matrix, used, weights, k + 9, left, right)
        for j in range(right - left):
            fore = (w0 * r0[j] + w1 * r1[j]) + (w2 * r2[j] + w3 * r3[j]) + w4 * r4[j]
            rear = (w5 * r5[j] + w6 * r6[j]) + (w7 * r7[j] + w8 * r8[j]) + w9 * r9[j]
            summed[j] += fore + rear
            ahead = (
                (abs(v0 * r0[j]) + abs(v1 * r1[j])) + (abs(v2 * r2[j]) + abs(v3 * r3[j])) + abs(v4 * r4[j])
            )
            behind = (
                (abs(v5 * r5[j]) + abs(v6 * r6[j])) + (abs(v7 * r7[j]) + abs(v8 * r8[j])) + abs(v9 * r9[j])
            )
            sizes[j] += ahead + behind


@compiled
def add_twice(matrix: Rows, used: Any, weights: Any, columns: Any, high: Any, low: Any, lost: Any) -> None:
    """Add the exact products at some `columns` to sums of two numbers each, and to `lost` what those cannot hold.

    Knuth 1969, theorem 4.2.2 B.
    """
    for i in used:
        weight, row = weights[i], stretch(matrix, i, 0, matrix.width)
        for k in range(len(columns)):
            term, old, rest = weight * np.float64(row[columns[k]]), high[k], low[k]
            high[k] = old + term
            part = high[k] - old
            error = (old - (high[k] - part)) + (term - part)
            low[k] = rest + error
            part = low[k] - rest
            lost[k] += abs((rest - (low[k] - part)) + (error - part))


@compiled
def settled(high: float, low: float, total: float) -> Any:
    """The float32 nearest to (high + low) / total, ties to even, and whether it is known; low is far below high.

    `total` has 28 bits at most, so that its product with a middle between two float32 is exact.
    """
    quotient = high / total
    margin = abs(quotient) * 2.0**-50
    below, above = np.float32(quotient - margin), np.float32(quotient + margin)
    if below == above:
        return below + np.float32(0), True
    middle = (np.float64(below) + np.float64(above)) / 2
    rest = (high - middle * total) + low  # the difference is exact: Sterbenz' lemma
    nearest = np.float32(middle) if rest == 0 else (above if rest > 0 else below)
    return nearest + np.float32(0), abs(rest) < np.inf and abs(middle) < np.inf  # NaN is not known


@compiled
def settle(terms: Any, total: float, left: int, found: Any, open_: Any) -> None:
    """Round what is open from column `left` on, where two numbers hold the exact sum: float32 often end in a tie."""
    columns = left + np.flatnonzero(open_[left : left + SPAN])
    high, low, lost = np.zeros(len(columns)), np.zeros(len(columns)), np.zeros(len(columns))
    add_twice(terms.matrix, terms.used, terms.weights, columns, high, low, lost)
    add_twice(terms.beside, np.arange(terms.beside.rows), terms.beside_weights, columns, high, low, lost)
    for k, column in enumerate(columns):
        whole = high[k] + low[k]
        value, known = settled(whole, low[k] - (whole - high[k]), total)
        if known and lost[k] == 0:
            found[column] = value
            open_[column] = False


@compiled
def certified_mean(terms: Any, total: float, short: bool, found: Any) -> Any:
    """Fill `found` with the mean of a block; where its rounding is open, as of `fedcore.rules.mean.certified_mean`.

    `terms` are those of `fedcore.rules.mean.Terms`, with both matrices as `Rows`.
    Less is left open where weights and total are `short`: their products with a float32 are exact.
    Sizes are summed in float32, which is off by less than one part in a thousand for 4,000 rows;
    what underflows there is worth less than the constant that is added.
    """
    matrix, used, weights, beside, beside_weights = terms
    columns, count = matrix.width, len(used) + beside.rows
    open_ = np.zeros(columns, np.bool_)
    over = 1 / total  # a product with it is off by twice as much as a quotient, and many times faster
    reach = (count + 8) * (1 + count * 2.0**-22) * 2.0**-53 * over
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
        if short:
            settle(terms, total, left, found, open_)
    return np.flatnonzero(open_)


@compiled
def centred(matrix: Rows, places: Any, beside: Any, left: int, wide: Any) -> None:
    """Fill `wide` (rows, columns) float64 from column `left` on: what `fedcore.rules.geometry._pieces` says."""
    columns, count = wide.shape[1], len(places)
    centre = beside[-1, left : left + columns]
    for i in range(count):
        row = stretch(matrix, places[i], left, left + columns)
        for j in range(columns):
            wide[i, j] = np.float64(row[j]) - np.float64(centre[j])
    for i in range(len(beside) - 1):
        for j in range(columns):
            wide[count + i, j] = np.float64(beside[i, left + j]) - np.float64(centre[j])
    for j in range(columns):
        wide[-1, j] = np.float64(centre[j])


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
