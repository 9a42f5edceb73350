"""Noise that is correlated over the rounds: what one round added, later rounds partly take back.

A model is the prefix sum of its rounds. Independent noise adds up in it; here only little of it
stays, and no cohort has to be drawn in secret for that: DP-FTRL. Both mechanisms release ``C x + z``
for the rounds' sums x and independent noise z, of which the sums noised by ``C⁻¹ z`` are all that
is shown. Round t needs z of rounds up to t, so each C is lower triangular.

- ``banded``: C is the square root of the prefix sums' matrix, cut to `bands` diagonals. Kalinin and
  Lampert 2024, arXiv:2405.13763, section 3; Choquette-Choo et al. 2023, arXiv:2306.08153.
- ``tree``: each row of C sums the rounds of one node of the binary tree that ends there. Only nodes
  that prefix sums are made of are noised. Kairouz et al. 2021, arXiv:2103.00039, section 3; Chan,
  Shi, Song 2011.

Of one client nothing is bounded but how often and how closely it takes part: a client's updates are
at most one clip long, and any two of its rounds are at least `bands` rounds apart.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, sqrt

import numpy as np

from fedcore.errors import BadInput, UnknownName
from fedcore.types import Floats


@dataclass(frozen=True)
class Correlated:
    """Noise for `rounds` rounds, in which a client's rounds are at least `bands` apart.

    ``sensitivity(k)`` is how far one client of at most k rounds moves C x, in clips: noise z of
    deviation ``noise multiplier · sensitivity`` makes the run one Gaussian release.
    ``row(t)`` (t + 1,) holds what z of rounds 0 … t count in round t's noise. ``start(d)`` is the
    memory before the first round and ``step(t, z, memory)`` gives round t's noise and the memory after it:
    the same noise from a few vectors. Whoever reads the memory can subtract noise: it is a secret of
    the server. ``variances`` (rounds,) are those of the prefix sums' noise for z of variance 1.
    """

    rounds: int
    bands: int
    sensitivity: Callable[[int], float]
    row: Callable[[int], Floats]
    start: Callable[[int], Floats]
    step: Callable[[int, Floats, Floats], tuple[Floats, Floats]]
    variances: Floats

    @property
    def most(self) -> int:
        """How often one client can take part at all."""
        return ceil(self.rounds / self.bands)


def correlated(mechanism: str, rounds: int, bands: int) -> Correlated:
    """The noise that `mechanism`, ``banded`` or ``tree``, adds. Raises `UnknownName` and `BadInput`."""
    mechanisms = {"banded": banded, "tree": tree}
    if mechanism not in mechanisms:
        raise UnknownName("correlated noise", mechanism, mechanisms)
    return mechanisms[mechanism](rounds, bands)


def banded(rounds: int, bands: int) -> Correlated:
    """Noise from the banded square root: x_t = z_t − Σ_j c_j x_{t−j} over the last ``bands − 1`` rounds.

    Rounds at least `bands` apart meet columns of C without a common row, so the squares add: k
    rounds move C x by at most √k times the longest column. Memory: ``(bands − 1, d)``.
    """
    _check(rounds, bands)
    width = min(bands, rounds)
    root = square_root(width)
    undone = _inverse(width, rounds)
    column = sqrt(float(root @ root))

    def step(t: int, z: Floats, memory: Floats) -> tuple[Floats, Floats]:
        noise: Floats = z - root[1:] @ memory
        return noise, np.concatenate([noise[np.newaxis], memory])[: width - 1]

    return Correlated(
        rounds=rounds,
        bands=bands,
        sensitivity=lambda k: sqrt(_taken(k, rounds, bands)) * column,
        row=lambda t: undone[t::-1].copy(),
        start=lambda size: np.zeros((width - 1, size)),
        step=step,
        variances=np.cumsum(np.cumsum(undone) ** 2),
    )


def tree(rounds: int, bands: int) -> Correlated:
    """Noise from binary tree aggregation: round t's node ends there and replaces the smaller ones before it.

    A node of 2^i rounds holds at most ``⌈2^i / bands⌉`` of one client's, and those of one size are
    disjoint, so k rounds move C x by at most ``√(Σ_i k · min(k, ⌈2^i / bands⌉))`` over the sizes up
    to `rounds`; for k = 1 that is the root of their number. Memory: one vector for each size.
    """
    _check(rounds, bands)
    sizes = rounds.bit_length()

    def sensitivity(k: int) -> float:
        taken = _taken(k, rounds, bands)
        return sqrt(sum(taken * min(taken, ceil(2**size / bands)) for size in range(sizes)))

    def row(t: int) -> Floats:
        coefficients = np.zeros(t + 1)
        coefficients[t] = 1.0
        coefficients[[t - 2**size for size in range(_replaced(t))]] = -1.0
        return coefficients

    def step(t: int, z: Floats, memory: Floats) -> tuple[Floats, Floats]:
        gone, after = _replaced(t), memory.copy()
        after[gone] = z  # smaller nodes are written again before they are read
        return z - memory[:gone].sum(axis=0), after

    return Correlated(
        rounds=rounds,
        bands=bands,
        sensitivity=sensitivity,
        row=row,
        start=lambda size: np.zeros((sizes, size)),
        step=step,
        variances=np.array([float((t + 1).bit_count()) for t in range(rounds)]),
    )


def square_root(width: int) -> Floats:
    """The first `width` coefficients of ``(1 − x)^(−1/2)``: the prefix sums' root as a Toeplitz matrix.

    c_0 = 1 and c_j = c_{j−1} · (2j − 1) / 2j. Fichtenberger, Henzinger, Upadhyay 2023,
    arXiv:2202.11205, equation 3.
    """
    j = np.arange(1, width)
    return np.concatenate([[1.0], np.cumprod((2 * j - 1) / (2 * j))])


@lru_cache(maxsize=8)
def _inverse(width: int, rounds: int) -> Floats:
    """The first `rounds` coefficients of the inverse of the root cut to `width` diagonals."""
    root = square_root(width)
    undone = np.zeros(rounds)
    undone[0] = 1.0
    for t in range(1, rounds):
        reach = min(t, width - 1)
        undone[t] = -(root[1 : reach + 1] @ undone[t - reach : t][::-1])
    undone.flags.writeable = False
    return undone


def _replaced(t: int) -> int:
    """How many nodes the one that ends at round t replaces: the ones at the end of t in binary."""
    return (~t & (t + 1)).bit_length() - 1


def _taken(k: int, rounds: int, bands: int) -> int:
    """`k`, or as often as a client can take part where that is less."""
    if k < 1:
        raise BadInput(f"a client takes part at least once, got {k}; count the rounds it may be asked in")
    return min(k, ceil(rounds / bands))


def _check(rounds: int, bands: int) -> None:
    if rounds < 1 or bands < 1:
        raise BadInput(
            f"correlated noise needs at least one round and one band, got {rounds} and {bands}; "
            "raise run.rounds or privacy.bands"
        )
