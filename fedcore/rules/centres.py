"""Rules that look for a centre of whole updates: `geometric_median`, `centered_clipping`.

Both move a point that is always a sum of rows, so every step is arithmetic on inner products.
Weights are ignored: a liar writes its own.
"""

from fractions import Fraction

import numpy as np

from fedcore.errors import BadInput
from fedcore.rules.blocks import checked
from fedcore.rules.coordinate import most_honest, require
from fedcore.rules.geometry import Geometry, Shares, added, geometry, lengths_from
from fedcore.rules.mean import weighted_mean
from fedcore.types import Floats, Updates, Vector, Weights


def geometric_median(
    updates: Updates,
    weights: Weights | None = None,
    *,
    f: int = 0,
    tolerance: float = 1e-6,
    iterations: int = 1000,
    smoothing: float = 1e-6,
) -> Vector:
    """The point with the least sum of distances to the rows, by Weiszfeld's steps from the coordinate median.

    A step shorter than `tolerance` times the median distance ends it; distances below `smoothing`
    of that count as so long. Holds against a minority of liars; `f` only demands that ``2 * f`` is
    less than the number of clients. Pillutla et al. 2022, arXiv:1912.13445, algorithm 2.
    """
    updates = checked(updates, weights)
    known = geometry(updates, few=0)
    options = {"tolerance": tolerance, "iterations": iterations, "smoothing": smoothing}
    return added(updates, known, median_shares(known, f=f, **options))  # type: ignore[arg-type]


def centered_clipping(
    updates: Updates,
    weights: Weights | None = None,
    *,
    radius: float,
    iterations: int = 1,
    f: int = 0,
    start: Vector | None = None,
) -> Vector:
    """`start` (zero) moved by the mean of the rows' distances from it, each cut to `radius`, `iterations` times.

    Pass the last result as `start`: it is the rule's whole state. `f` only demands a majority; the
    proof wants about ``10 * f`` clients. Karimireddy et al. 2021, arXiv:2012.10333, section 4.
    """
    updates = checked(updates, weights)
    start = updates[0] * 0 if start is None else start
    if iterations == 1:
        return clipped_once(updates, start, radius=radius, f=f)[0]
    known = geometry(updates, [start])
    return added(updates, known, clipping_shares(known, radius=radius, iterations=iterations, f=f), [start])


def clipped_once(
    updates: Updates, start: Vector, *, radius: float, iterations: int = 1, f: int = 0
) -> tuple[Vector, Shares]:
    """One step of centered clipping, which needs lengths only: two passes over memory and no products."""
    require(len(updates), f, most_honest, "centered clipping")
    _above_zero("radius", radius)
    lengths = lengths_from(updates, start)
    steps = _steps(lengths, radius)
    stays = np.array([1 - steps.sum()])
    vector = weighted_mean(updates, steps, Fraction(1), [start], stays)
    return vector, Shares(steps, stays, notes={"clipped": int((lengths > radius).sum())})


def median_shares(
    known: Geometry,
    *,
    f: int = 0,
    tolerance: float = 1e-6,
    iterations: int = 1000,
    smoothing: float = 1e-6,
) -> Shares:
    """What each row is to the geometric median; the notes say whether it was reached."""
    require(len(known), f, most_honest, "the geometric median")
    _above_zero("tolerance", tolerance)
    _above_zero("iterations", iterations)
    _above_zero("smoothing", smoothing)
    products = known.from_centre()
    place, step, steps = np.zeros(len(known)), 0.0, 0
    scale = float(np.median(_distances(products, place)))
    while steps < iterations and (step > tolerance * scale or not steps):
        steps += 1
        pull = 1 / np.maximum(_distances(products, place), smoothing * scale or 1.0)
        moved = pull / pull.sum()
        step = float(np.sqrt(max(0.0, (moved - place) @ products @ (moved - place))))
        place = moved
    notes = {"iterations": steps, "converged": step <= tolerance * scale, "last_step": step}
    return Shares(place, notes=notes)


def clipping_shares(known: Geometry, *, radius: float, iterations: int = 1, f: int = 0) -> Shares:
    """What each row, and the start as the one extra vector, is to the clipped centre."""
    rows = len(known)
    require(rows, f, most_honest, "centered clipping")
    _above_zero("radius", radius)
    _above_zero("iterations", iterations)
    products = known.from_centre(extras=True)
    place = np.eye(rows + 1)[rows]
    for _ in range(int(iterations)):
        lengths = _distances(products, place)[:rows]
        steps = np.append(_steps(lengths, radius), 0.0)
        place = place * (1 - steps.sum()) + steps
    lengths = _distances(products, np.eye(rows + 1)[rows])[:rows]
    return Shares(place[:rows], place[rows:], notes={"clipped": int((lengths > radius).sum())})


def _steps(lengths: Floats, radius: float) -> Floats:
    """How far the centre goes to each row: all the way of one in so many, or as far as `radius`."""
    steps: Floats = np.minimum(1.0, radius / np.maximum(lengths, np.finfo(float).tiny)) / len(lengths)
    return steps


def _distances(products: Floats, place: Floats) -> Floats:
    """Distances of all rows from the sum of rows `place`."""
    pulled = products @ place
    return np.sqrt(np.maximum(np.diagonal(products) - 2 * pulled + place @ pulled, 0.0))


def _above_zero(name: str, value: float) -> None:
    if not (np.isfinite(value) and value > 0):
        raise BadInput(f"{name} must be finite and above zero, got {value!r}; change combine.options.{name}")
