"""What is done to the rows before a rule: `nnm`, `bucketing`, `static_clip`, `arc`; matrix to matrix.

Each new row is a sum of old ones, so a mixer is a matrix of factors, and a chain of mixers is
their product: a rule reads the mixed rows block by block, and no mixed matrix is ever held.
"""

import numpy as np

from fedcore.errors import BadInput
from fedcore.rules.blocks import Matrix, checked, empty, over_columns
from fedcore.rules.coordinate import most_honest, require
from fedcore.rules.geometry import Geometry, geometry, rows_of
from fedcore.types import Floats, Updates


def nnm(updates: Updates, *, f: int) -> Updates:
    """Each row's mean with its nearest: ``n - f`` rows, itself among them.

    Makes any robust rule of the best order there is, f / n. Needs more than ``2 * f`` clients.
    Allouah et al. 2023, arXiv:2302.01772, algorithm 2.
    """
    known = geometry(checked(updates))
    return _in_place(updates, known, nnm_mixing(known, f=f))


def bucketing(updates: Updates, *, size: int, rng: np.random.Generator) -> Updates:
    """Means of `size` rows drawn at random, every row in one of the ⌈n / size⌉ buckets.

    A liar spoils one bucket, so f stays. Karimireddy et al. 2022, arXiv:2006.09365, algorithm 1.
    """
    known = geometry(checked(updates))
    return matrix_of(updates, known.mixed(bucketing_mixing(known, size=size, rng=rng)))


def static_clip(updates: Updates, *, radius: float) -> Updates:
    """Rows longer than `radius` scaled down to it."""
    known = geometry(checked(updates))
    return _in_place(updates, known, static_clip_mixing(known, radius=radius))


def arc(updates: Updates, *, f: int) -> Updates:
    """The ⌊2 f (n - f) / n⌋ longest rows scaled down to the length of the next.

    Needs more than ``2 * f`` clients. Allouah et al. 2025, arXiv:2405.14432, algorithm 2.
    """
    known = geometry(checked(updates))
    return _in_place(updates, known, arc_mixing(known, f=f))


def nnm_mixing(known: Geometry, *, f: int) -> Floats:
    """Factors (rows, rows) of `nnm`."""
    rows = len(known)
    require(rows, f, most_honest, "NNM")
    nearest = np.argsort(known.distances(), axis=1, kind="stable")[:, : rows - f]
    mixing = np.zeros((rows, rows))
    np.put_along_axis(mixing, nearest, 1 / (rows - f), axis=1)
    return mixing


def bucketing_mixing(known: Geometry, *, size: int, rng: np.random.Generator) -> Floats:
    """Factors (buckets, rows) of `bucketing`."""
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
        raise BadInput(f"a bucket's size must be 1 or more, got {size!r}; change combine.mixer_options")
    rows = len(known)
    bucket = np.arange(rows) // size
    mixing = np.zeros((bucket[-1] + 1, rows))
    mixing[bucket, rng.permutation(rows)] = 1.0
    mixing /= mixing.sum(axis=1, keepdims=True)
    return mixing


def static_clip_mixing(known: Geometry, *, radius: float) -> Floats:
    """Factors (rows, rows) of `static_clip`."""
    if not (np.isfinite(radius) and radius > 0):
        raise BadInput(f"radius must be finite and above zero, got {radius!r}; change combine.mixer_options")
    return _shortened(_lengths(known), radius)


def arc_mixing(known: Geometry, *, f: int) -> Floats:
    """Factors (rows, rows) of `arc`."""
    rows = len(known)
    require(rows, f, most_honest, "ARC")
    lengths = _lengths(known)
    return _shortened(lengths, float(np.sort(lengths)[rows - 1 - 2 * f * (rows - f) // rows]))


def matrix_of(updates: Matrix, known: Geometry) -> Updates:
    """The rows of `known` as a matrix."""
    make = rows_of(known)
    result: Updates = empty(updates, len(known), updates.shape[1])

    def work(part: Matrix, start: int, stop: int) -> None:
        result[:, start:stop] = make(part)

    over_columns(updates, work, bytes_per_column=24 * len(updates))
    return result


def _in_place(updates: Matrix, known: Geometry, mixing: Floats) -> Updates:
    """The mixed matrix, with each row where the one it comes from was."""
    where = np.argsort(known.order)
    return matrix_of(updates, known.mixed(mixing[where]))


def _lengths(known: Geometry) -> Floats:
    lengths: Floats = np.sqrt(np.maximum(np.diagonal(known.from_zero()), 0.0))
    return lengths


def _shortened(lengths: Floats, limit: float) -> Floats:
    return np.diag(np.minimum(1.0, limit / np.maximum(lengths, np.finfo(np.float64).tiny)))
