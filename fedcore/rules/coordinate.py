"""Rules that look at one coordinate at a time: `median`, `trimmed_mean`, `meamed`.

Columns are sorted in blocks, and sums run over sorted values in float64: no order of the rows
changes a bit. Weights are ignored: a liar writes its own.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fedcore.errors import BadInput, TooFewClients
from fedcore.rules.blocks import Matrix, checked, columns, empty, host, namespace, over_columns
from fedcore.rules.compiled import kernels
from fedcore.rules.network import comparators
from fedcore.types import Floats, Updates, Vector, Weights

Rows = Callable[[Matrix], Matrix]  # a block of columns of the updates -> the same columns of what is combined
_SAMPLE = 2**14  # coordinates that are looked at to say which rows were kept


class Ranks(NamedTuple):
    """Which values of each column are averaged: the ranks low:high, or the `nearest` to the median."""

    low: int
    high: int
    nearest: int | None = None


def median(updates: Updates, weights: Weights | None = None, *, f: int = 0) -> Vector:
    """The middle value of each coordinate, the mean of the two middle ones of an even number.

    Holds against a minority of liars; `f` only demands that ``2 * f`` is less than the number of
    clients. Yin et al. 2018, arXiv:1803.01498, definition 1.
    """
    updates = checked(updates, weights)
    return combined(updates, median_ranks(len(updates), f=f))


def trimmed_mean(updates: Updates, weights: Weights | None = None, *, f: int) -> Vector:
    """Mean of each coordinate once its `f` lowest and highest values are gone.

    Holds against `f` liars among more than ``2 * f`` clients. Yin et al. 2018, arXiv:1803.01498,
    definition 2.
    """
    updates = checked(updates, weights)
    return combined(updates, trimmed_ranks(len(updates), f=f))


def meamed(updates: Updates, weights: Weights | None = None, *, f: int) -> Vector:
    """Mean of the ``n - f`` values of each coordinate that are nearest to its median; of two as near, the lower.

    Holds against `f` liars among more than ``2 * f`` clients. Xie et al. 2018, arXiv:1802.10116,
    definition 9.
    """
    updates = checked(updates, weights)
    return combined(updates, meamed_ranks(len(updates), f=f))


def median_ranks(rows: int, *, f: int = 0) -> Ranks:
    """The middle rank, or the two."""
    require(rows, f, most_honest, "the median")
    return Ranks((rows - 1) // 2, rows // 2 + 1)


def trimmed_ranks(rows: int, *, f: int) -> Ranks:
    """All but the `f` lowest and highest."""
    require(rows, f, most_honest, "the trimmed mean")
    return Ranks(f, rows - f)


def meamed_ranks(rows: int, *, f: int) -> Ranks:
    """The ``rows - f`` nearest to the median."""
    require(rows, f, most_honest, "meamed")
    return Ranks(0, rows, rows - f)


def most_honest(f: int) -> int:
    """Rows of which `f` are a minority."""
    return 2 * f + 1


def require(rows: int, f: int, least: Callable[[int], int], rule: str) -> None:
    """Raise `BadInput` for an `f` that is no count, `TooFewClients` for fewer rows than the `least` for it."""
    if isinstance(f, bool) or not isinstance(f, int | np.integer) or f < 0:
        raise BadInput(f"f is the number of liars to survive and must be 0 or more, got {f!r}; set combine.f")
    if rows < (needed := least(f)):
        raise TooFewClients(needed, rows, f"{rule} against f = {f}")


def combined(updates: Matrix, ranks: Ranks, rows: Rows | None = None) -> Vector:
    """The mean over `ranks` in each column of `updates`, or of what `rows` makes of its columns."""
    result: Vector = empty(updates, updates.shape[1])

    def work(part: Matrix, start: int, stop: int) -> None:
        result[start:stop] = combined_block(rows(part) if rows else part, updates, ranks)

    over_columns(
        updates, work, bytes_per_column=(4 if rows is None and kernels(updates) else 24) * len(updates)
    )
    return result


def combined_block(block: Matrix, of: Matrix, ranks: Ranks) -> Vector:
    """The mean over `ranks` in each column of `block`, rows of some columns `of` the updates. Raises `BadInput`."""
    kernel = kernels(block, of=of)
    return _by_kernel(kernel, block, ranks) if kernel else by_sorting(block, ranks)


def by_sorting(block: Matrix, ranks: Ranks) -> Vector:
    """The mean over `ranks` of each column of `block`, by the sort of its library. Raises `BadInput`."""
    xp, rows = namespace(block), len(block)
    found = xp.sort(block, 0)
    ordered = found if isinstance(found, np.ndarray) else found[0]
    wide = xp.asarray(ordered, dtype=xp.float64)
    _require_finite(bool(xp.isfinite(wide[0]).all() and xp.isfinite(wide[-1]).all()))
    if ranks.nearest is None:
        summed = _summed(wide[ranks.low : ranks.high], None)
        mean = summed / (ranks.high - ranks.low)
    else:
        middle, count = (wide[(rows - 1) // 2] + wide[rows // 2]) / 2, ranks.nearest
        first = sum((wide[i + count] - middle < middle - wide[i]) * 1 for i in range(rows - count))
        inside = [(first <= i) & (i < first + count) for i in range(rows)]
        mean = _summed(wide, inside) / count
    result: Vector = xp.asarray(mean, dtype=xp.float32)
    return result


def survival(updates: Matrix, ranks: Ranks, f: int, rows: Rows | None = None) -> Floats:
    """The share of coordinates, (clients,), in which each row lies within what `ranks` average.

    For the median: within what a trimmed mean for `f` keeps. Looks at up to 16,384 coordinates.
    """
    size = updates.shape[1]
    stretch = 64  # adjacent coordinates, for a mapped file's sake
    step = stretch * max(1, -(-size // _SAMPLE))
    parts = [columns(updates, start, min(start + stretch, size)) for start in range(0, size, step)]
    mixed = [host(rows(part) if rows else part) for part in parts]
    block = np.concatenate(mixed, axis=1).astype(np.float64)
    ordered, count = np.sort(block, axis=0), len(block)
    if ranks.nearest is None:
        low, high = (ranks.low, ranks.high) if ranks.high - ranks.low > 2 else (f, count - f)
        inside = (block >= ordered[low]) & (block <= ordered[high - 1])
        return np.asarray(inside.mean(axis=1), dtype=np.float64)
    middle = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    reach = np.sort(np.abs(block - middle), axis=0)[ranks.nearest - 1]
    inside = np.abs(block - middle) <= reach
    return np.asarray(inside.mean(axis=1), dtype=np.float64)


def _by_kernel(kernel: Any, block: Any, ranks: Ranks) -> Vector:
    rows = len(block)
    if ranks.nearest is not None:
        result = kernel.nearest_mean(kernel.as_rows(block), comparators(rows), ranks.nearest)
    else:
        pairs = comparators(rows, ranks.low, ranks.high)
        result = kernel.ranked_mean(kernel.as_rows(block), pairs, ranks.low, ranks.high)
    found: Vector = result[0]
    _require_finite(result[1])
    return found


def _require_finite(finite: bool) -> None:
    if not finite:
        raise BadInput("updates must be finite; refuse the one that is not before it is combined")


def _summed(rows: Any, inside: list[Any] | None) -> Any:
    """Rows added from the first on; of `inside`, where it is true."""
    total = rows[0] * 0.0
    for i, row in enumerate(rows):
        total = total + (row if inside is None else row * inside[i])
    return total
