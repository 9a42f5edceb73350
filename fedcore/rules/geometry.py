"""What the rules that compare whole updates need to know: the inner products of the rows, once.

Krum, geometric median, clipping, mixing: all choose factors for the rows, and all they ask is
distances, between rows or from a point that is itself a sum of rows. So one pass over memory finds
the Gram matrix, the rule is arithmetic on a (rows, rows) matrix, and one more pass adds the rows.

Rows are taken relative to the coordinate median of a few, or of all if that is far from most, so
that no offset and no liar costs honest distances their precision; products are summed in float64.
They are taken in the order of their content, so that the order of arrival changes nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import fsum
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import BadInput
from fedcore.rules.blocks import Matrix, by_content, host, namespace, over_columns, places
from fedcore.rules.compiled import kernels
from fedcore.rules.coordinate import Rows, combined_block, median_ranks
from fedcore.rules.mean import weighted_mean
from fedcore.types import Floats, Json, Vector

_FEW = 9  # rows whose median is near all others unless liars are many among them
_ROUNDING = 1e-13  # of two squared lengths: what their difference may be off by
_NUMBERS = 2**16  # float64 at a time: half a megabyte stays in the second-level cache


class Shares(NamedTuple):
    """What a rule decided: the factor of each row (rows,) and of each extra vector, and what to tell.

    The result is the sum divided by `total` (None: the sum of all factors). `noise` is the
    standard deviation of what is added to each coordinate then.
    """

    rows: Floats
    extras: Floats | None = None
    total: Fraction | None = None
    noise: float = 0.0
    notes: Mapping[str, Json] = MappingProxyType({})


@dataclass(frozen=True)
class Geometry:
    """Rows as sums of updates, and the inner products of these.

    `gram` is of the updates in the order `order`, then extra vectors, all minus the `centre`, and
    last the centre itself. `mixing` (rows, updates + extras) says what each row is a sum of.
    """

    order: NDArray[np.intp]
    gram: Floats
    mixing: Floats

    def __len__(self) -> int:
        return len(self.mixing)

    @property
    def extras(self) -> int:
        """Number of extra vectors."""
        return len(self.gram) - 1 - len(self.order)

    def mixed(self, mixing: Floats) -> "Geometry":
        """The geometry of the rows ``mixing @ rows``."""
        return replace(self, mixing=mixing @ self.mixing)

    def from_centre(self, extras: bool = False) -> Floats:
        """Inner products (rows, rows) of rows minus centre, and of extra vectors minus centre if asked."""
        return self._products(self._factors(extras), 1.0)

    def from_zero(self, extras: bool = False) -> Floats:
        """Inner products (rows, rows) of the rows, and of extra vectors if asked."""
        return self._products(self._factors(extras), 0.0)

    def distances(self) -> Floats:
        """Squared distances (rows, rows), never below zero, zero from a row to itself."""
        factors = self._factors(False)
        products = self._products(factors, float(factors.sum(axis=1).mean()))
        squares = np.diagonal(products)
        sizes = squares[:, None] + squares[None, :]
        found: Floats = sizes - 2 * products
        found[found < _ROUNDING * sizes] = 0.0  # equal rows are at no distance, and none is below zero
        np.fill_diagonal(found, 0.0)
        return found

    def back(self, shares: Shares) -> tuple[Floats, Floats]:
        """Factors of the updates as they came, and of the extra vectors, from factors of the rows."""
        factors = shares.rows @ self.mixing
        updates = np.empty(len(self.order))
        updates[self.order] = factors[: len(self.order)]
        of_extras = factors[len(self.order) :]
        return updates, of_extras if shares.extras is None else of_extras + shares.extras

    def _factors(self, extras: bool) -> Floats:
        if not extras:
            return self.mixing
        return np.vstack([self.mixing, np.eye(self.extras, self.mixing.shape[1], len(self.order))])

    def _products(self, factors: Floats, centres: float) -> Floats:
        """Inner products of ``factors @ vectors - centres * centre``."""
        complete = np.column_stack([factors, factors.sum(axis=1) - centres])
        products: Floats = complete @ self.gram @ complete.T
        return products


def geometry(updates: Matrix, extras: Sequence[Vector] = (), *, few: int = _FEW) -> Geometry:
    """The geometry of the rows of `updates`, each a row of its own, around the median of a `few` (0: all).

    Raises `BadInput` if one is not finite.
    """
    order = by_content(updates)
    chosen = order[:: -(-len(order) // few)] if few else order
    gram = _gram(updates, extras, order, chosen)
    if not np.isfinite(gram).all():
        raise BadInput("updates must be finite; refuse the one that is not before it is combined")
    known = Geometry(order, gram, np.eye(len(order), len(order) + len(extras)))
    return geometry(updates, extras, few=0) if few and _blurred(known) else known


def _blurred(known: Geometry) -> bool:
    """Whether most rows are so much further from the centre than from each other that distances lose digits."""
    between = np.median(np.median(known.distances(), axis=1))
    return bool(np.median(np.diagonal(known.from_centre())) > 1e4 * between)


def added(updates: Matrix, known: Geometry, shares: Shares, extras: Sequence[Vector] = ()) -> Vector:
    """The vector that `shares` of the rows of `known` make, rounded once."""
    factors, of_extras = known.back(shares)
    total = shares.total
    if total is None and len(extras):
        total = Fraction(fsum([*factors, *of_extras]))
    return weighted_mean(updates, factors, total, extras, of_extras)


def lengths_from(updates: Matrix, point: Vector) -> Floats:
    """Distances (rows,) of the rows of `updates` from `point`: one pass, where nothing else is asked."""
    total = np.zeros(len(updates))
    order = np.arange(len(updates))

    @np.errstate(invalid="ignore")  # what is not finite shows in the sum, and is refused there
    def block(part: Matrix, start: int, stop: int) -> Floats:
        summed: Floats = np.zeros(len(updates))
        for wide in _pieces(part, [point[start:stop]], order, updates):
            rows = host(wide[:-1])
            summed += np.einsum("ij,ij->i", rows, rows)
        return summed

    def add(part: Floats) -> None:
        total[:] += part

    over_columns(updates, block, 12 * len(updates), add)
    if not np.isfinite(total).all():
        raise BadInput("updates must be finite; refuse the one that is not before it is combined")
    return np.sqrt(total)


def rows_of(known: Geometry) -> Rows:
    """Makes the rows of `known`, in its order, as float32, from any columns of the updates."""
    mixing = known.mixing[:, : len(known.order)]
    chosen = known.order[mixing.argmax(axis=1)]
    alone = np.array_equal(mixing, np.eye(len(known.order))[mixing.argmax(axis=1)])

    def make(part: Matrix) -> Matrix:
        if alone:
            return part[places(part, chosen)]
        xp = namespace(part)
        wide = xp.asarray(part[places(part, known.order)], dtype=xp.float64)
        factors = mixing if xp is np else xp.asarray(mixing, device=wide.device)
        return xp.asarray(factors @ wide, dtype=xp.float32)

    return make


def _gram(
    updates: Matrix, extras: Sequence[Vector], order: NDArray[np.intp], chosen: NDArray[np.intp]
) -> Floats:
    """Inner products of updates and extras minus centre, and of the centre, summed piece by piece in order.

    The centre is the coordinate median of the `chosen` rows, found where the block is at hand: memory is read once.
    """
    alone, ranks = len(chosen) < len(updates), median_ranks(len(chosen))
    vectors = len(order) + len(extras) + 1
    total = np.zeros((vectors, vectors))

    @np.errstate(invalid="ignore")  # what is not finite shows in the sum, and is refused there
    def block(part: Matrix, start: int, stop: int) -> Floats:
        summed: Floats = np.zeros((vectors, vectors))
        centre = combined_block(part[places(part, chosen)] if alone else part, updates, ranks)
        for wide in _pieces(part, [*(extra[start:stop] for extra in extras), centre], order, updates):
            # matmul keeps the interpreter's lock where the result is small, and threads would wait
            summed += np.dot(wide, wide.T) if isinstance(wide, np.ndarray) else host(wide @ wide.T)
        return summed

    def add(part: Floats) -> None:
        total[:] += part

    over_columns(updates, block, (12 if alone else 24) * vectors, add)  # all sorted are a copy more
    return total


def _pieces(
    part: Matrix, beside: Sequence[Vector], order: NDArray[np.intp], whole: Matrix
) -> Iterator[Matrix]:
    """A block in float64, so many columns at a time: rows in `order` and `beside` minus centre, and the centre, its last.

    Each is written over the one before: memory that is new is slow. So is the interpreter between two threads: a piece
    is one call of the kernel for `whole`.
    """
    xp, kernel, columns = namespace(part), kernels(whole), part.shape[1]
    vectors = len(order) + len(beside)
    cached = max(_NUMBERS // vectors, 2 * vectors) // 64 * 64 + 64  # in fewer, adding products costs as much
    piece = cached if isinstance(whole, np.ndarray) else 2**17  # a GPU wants more
    space = xp.empty((vectors, min(piece, columns)), dtype=xp.float64, device=part.device)
    rows, others = (kernel.as_rows(part), np.stack(beside)) if kernel else (part, beside)
    fill: Callable[..., None] = kernel.centred if kernel else _centred
    for left in range(0, columns, piece):
        wide = space[:, : min(piece, columns - left)]
        fill(rows, order, others, left, wide)
        yield wide


def _centred(
    part: Matrix, order: NDArray[np.intp], beside: Sequence[Vector], left: int, wide: Matrix
) -> None:
    """Fill `wide` with the columns from `left` on: what `_pieces` says, in plain numpy or on a GPU."""
    inside, rows = slice(left, left + wide.shape[1]), len(order)
    centre = beside[-1][inside]
    wide[:rows] = part[:, inside][places(part, order)]
    for i, vector in enumerate(beside, rows):
        wide[i] = vector[inside]
    wide[:-1] -= centre
