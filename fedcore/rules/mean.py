"""The weighted mean: best where nobody lies, and where noise is added to the sum.

Every mean of rows in this package comes from `weighted_mean`: the float32 nearest to the exact
value, whatever the order of the rows. A float64 sum with a bound of its own error settles almost
every coordinate in one pass over memory; those whose rounding it leaves open are summed exactly.
"""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import TooFewClients
from fedcore.rules.blocks import (
    Matrix,
    checked,
    checked_weights,
    empty,
    host,
    namespace,
    over_columns,
    places,
)
from fedcore.rules.compiled import kernels
from fedcore.rules.exact import TOTAL_BITS, ExactSum, are_short, as_float32, bits
from fedcore.types import Floats, Updates, Vector, Weights

NOTHING: Floats = np.empty(0)


def mean(updates: Updates, weights: Weights) -> Vector:
    """Mean of the rows (n, d) weighted by `weights` (n,): the float32 nearest to its exact value, (d,).

    The only error is that one rounding, so no order of the rows changes a bit. Holds against no
    liar. FedAvg: McMahan et al. 2017, arXiv:1602.05629, algorithm 1.
    """
    updates = checked(updates, weights)
    return weighted_mean(updates, np.asarray(weights, dtype=np.float64))


def streaming_mean(rows: Iterable[tuple[Vector, float]]) -> Vector:
    """The bits of `mean` from (update, weight) pairs as they arrive, in memory for a few vectors.

    Raises `TooFewClients` if none arrives.
    """
    summed: ExactSum | None = None
    total = Fraction(0)
    for row, weight in rows:
        summed = summed or ExactSum(len(row))
        summed.add(row, float(checked_weights([weight], 1)[0]))
        total += Fraction(float(weight))
    if summed is None:
        raise TooFewClients(1, 0, "the mean")
    return summed.mean(total)


def weighted_mean(
    matrix: Matrix,
    weights: Floats,
    total: Fraction | None = None,
    extras: Sequence[Vector] = (),
    extra_weights: Floats = NOTHING,
) -> Vector:
    """(Σ weight · row + Σ weight · extra) / `total`, or the sum of weights; rounded once.

    Rows of weight 0 are not read.
    """
    used = np.flatnonzero(weights)
    if total is None:
        if len(used) and np.all(weights[used] == weights[used[0]]):
            weights = (weights != 0).astype(np.float64)  # equal weights are ones: sums stay short
        total = sum((Fraction(float(weight)) for weight in weights), Fraction(0))
    xp = namespace(matrix)
    result: Vector = empty(matrix, matrix.shape[1])
    beside = xp.stack(list(extras)) if len(extras) else matrix[:0]
    factors = np.concatenate([weights[used], extra_weights])
    kernel = kernels(matrix) if _alike(factors) else None
    short = kernel is not None and are_short(factors) and bits(total) <= TOTAL_BITS

    def work(part: Matrix, start: int, stop: int) -> None:
        terms = Terms(part, used, weights, beside[:, start:stop], extra_weights)
        if kernel:
            found = result[start:stop]
            unsure = _compiled(kernel, terms, float(total), short, found)
        else:
            found, unsure = certified_mean(terms, float(total))
        if len(unsure):
            found[unsure] = _exact(terms, total, unsure)
        if not kernel:
            result[start:stop] = found if xp is np else xp.asarray(found, device=result.device)

    over_columns(matrix, work, bytes_per_column=(4 if kernel else 24) * len(matrix))
    return result


class Terms(NamedTuple):
    """What is summed in a block: the `used` rows of `matrix` by their weights, and the rows of `beside`."""

    matrix: Matrix
    used: NDArray[np.intp]
    weights: Floats
    beside: Matrix
    beside_weights: Floats


@np.errstate(invalid="ignore")  # what is not finite is left open here, and refused when it is summed
def certified_mean(terms: Terms, total: float) -> tuple[Vector, NDArray[np.intp]]:
    """The mean of a block, and the columns in which the error of float64 leaves its rounding open.

    The error of a sum of n products is at most n · 2⁻⁵³ of the sum of their sizes, in any order.
    """
    matrix, used, weights, beside, beside_weights = terms
    xp = namespace(matrix)
    rows = matrix if len(used) == len(matrix) else matrix[places(matrix, used)]
    summed, sizes = _sums(xp, rows, weights[used])
    if len(beside):
        more, larger = _sums(xp, beside, beside_weights)
        summed, sizes = summed + more, sizes + larger
    quotient, margin = summed / total, sizes / total * ((len(used) + len(beside) + 8) * 2.0**-52)
    below, above = as_float32(quotient - margin), as_float32(quotient + margin)
    return below + np.float32(0), np.flatnonzero(below != above)


def _compiled(kernel: ModuleType, terms: Terms, total: float, short: bool, found: Vector) -> NDArray[np.intp]:
    """`certified_mean` by its compiled twin, which fills `found` and leaves less open where weights are `short`."""
    rows = terms._replace(matrix=kernel.as_rows(terms.matrix), beside=kernel.as_rows(terms.beside))
    unsure: NDArray[np.intp] = kernel.certified_mean(rows, total, short, found)
    return unsure


def _sums(xp: Any, rows: Matrix, weights: Floats) -> tuple[Floats, Floats]:
    """Σ weight · row and the sum of its terms' sizes, in float64."""
    block = xp.asarray(rows, dtype=xp.float64)
    factors = weights if xp is np else xp.asarray(weights, device=block.device)
    return host(factors @ block), host(abs(factors) @ abs(block))


def _exact(terms: Terms, total: Fraction, columns: NDArray[np.intp]) -> Vector:
    """The mean at some `columns` of a block, summed exactly."""
    matrix, used, weights, beside, beside_weights = terms
    summed = ExactSum(len(columns))
    for rows, factors, chosen in ((matrix, weights, used), (beside, beside_weights, slice(None))):
        if len(rows) and len(factors[chosen]):
            summed.add(host(rows[:, places(matrix, columns)])[chosen], factors[chosen])
    return summed.mean(total)


def _alike(weights: Floats) -> bool:
    """Whether the compiled kernel's sizes, summed in float32, can hold products with all of `weights`."""
    sizes = [abs(weight) for weight in weights if weight]
    return bool(sizes) and min(sizes) >= 2.0**-40 and max(sizes) <= 2.0**40
