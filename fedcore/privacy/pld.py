"""ε by privacy loss distributions, through google's dp-accounting; exact where all noise is Gaussian and unsampled.

Privacy losses lie on a grid. Its interval is a small share of the loss's deviation in one release, so that
rounding adds less than 0.1 % to ε whatever the number of rounds, and always upward (connect-the-dots:
Doroshenko et al. 2022, arXiv:2207.04380). Every number is a pure function of what was released, not
of what was asked before, so that a resumed run writes the same ε.
"""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from fedcore.errors import MissingExtra
from fedcore.privacy.losses import Losses, Moments, beside, epsilon_at, moments, repeated
from fedcore.privacy.releases import Gaussian, Laplace, Release

FLOOR = 1e-9  # of δ: below it, rounding errors of the Fourier transforms would count
_LEAST_NOISE = 0.05  # below it losses overflow, and ε is of no use to anyone
_FINENESS = 10  # intervals in the deviation of one release's loss
_COARSEST = 2.0**-9
_MOST_POINTS = 2.0**16

_Known = Gaussian | Laplace
_Counts = tuple[tuple[_Known, int], ...]


def pld_epsilon(counts: Mapping[Release, int], delta: float) -> float | None:
    """The smallest ε at `delta` of all releases together; None where no loss distribution is known here.

    Koskela et al. 2020, arXiv:1906.03049; all unsampled Gaussian: Balle & Wang 2018, arXiv:1805.06530,
    theorem 8, exact.

    Laplace noise on a vector is dominated by that on one coordinate moved by the whole L1 distance:
    with losses weighted by √(P·Q), a move of a has the transform m_a(s) = e^(-a/2)(cosh as + sinh(as)/2s),
    and m_(a+b) - m_a·m_b = (s² - ¼)·e^(-(a+b)/2)·sinh(as)/s·sinh(bs)/s. The factor s² - ¼ is the operator
    whose Green's functions are the hockey sticks, the rest the transform of a positive measure: every
    hockey-stick divergence of one move is at least that of two.
    """
    known = [(r, times) for r, times in counts.items() if isinstance(r, Gaussian | Laplace)]
    if len(known) < len(counts):
        return None
    merged = _merged(known)
    if all(r == Gaussian(r.multiplier) for r, _ in merged):
        return gaussian_epsilon(merged[0][0].multiplier, delta) if merged else 0.0
    if delta < FLOOR or any(r.multiplier < _LEAST_NOISE for r, _ in merged):
        return None
    interval = _interval(merged)
    together = tuple((*pair, interval) for pair in merged)
    return max(_directed(together, delta, added=False), _directed(together, delta, added=True))


def gaussian_epsilon(multiplier: float, delta: float) -> float:
    """ε at `delta` of one unsampled Gaussian release, exact. Balle & Wang 2018, theorem 8."""
    try:
        from dp_accounting.gaussian_mechanism import get_epsilon_gaussian
    except ImportError:
        raise MissingExtra("dp-accounting", "privacy") from None
    return float(get_epsilon_gaussian(multiplier, delta))


def _merged(known: list[tuple[_Known, int]]) -> _Counts:
    """The same releases in one order, all unsampled Gaussians as the single one they amount to."""
    unsampled = math.fsum(times / r.multiplier**2 for r, times in known if r == Gaussian(r.multiplier))
    others = sorted((pair for pair in known if pair[0] != Gaussian(pair[0].multiplier)), key=repr)
    return ((Gaussian(unsampled**-0.5), 1), *others) if unsampled else tuple(others)


def _interval(merged: _Counts) -> float:
    """The grid's interval, a power of two so that accounts share it."""
    releases = sum(times for _, times in merged)
    spread = math.sqrt(sum(times * _spread(r) ** 2 for r, times in merged) / releases)
    wanted = min(_COARSEST, spread / _FINENESS)
    return 2.0 ** math.floor(math.log2(max(wanted, max(_reach(r) for r, _ in merged) / _MOST_POINTS)))


def _spread(release: _Known) -> float:
    """About the standard deviation of one release's privacy loss, at most 1: √χ² of its dominating pair."""
    if isinstance(release, Laplace):
        return release.rate * min(1.0, 1 / release.multiplier)
    return min(1.0, release.rate * math.sqrt(math.expm1(min(50.0, release.multiplier**-2))))


def _reach(release: _Known) -> float:
    """About the largest privacy loss of one release that the distribution keeps."""
    noise = 1 / release.multiplier
    whole = noise if isinstance(release, Laplace) else 10 * noise + noise**2 / 2
    return math.log1p(release.rate * math.expm1(whole))


def _directed(together: tuple[tuple[_Known, int, float], ...], delta: float, *, added: bool) -> float:
    """ε where the client is in the second data set (`added`) or in the first."""
    whole = None
    for release, times, interval in together:
        part = _repeated(release, times, interval, added)
        whole = part if whole is None else beside(whole, part)
    assert whole is not None, "what is empty was answered before"
    return epsilon_at(whole, delta)


@lru_cache(maxsize=16)
def _repeated(release: _Known, times: int, interval: float, added: bool) -> Losses:
    return repeated(*_single(release, interval)[added], times)


@lru_cache(maxsize=16)
def _single(release: _Known, interval: float) -> tuple[tuple[Losses, Moments], tuple[Losses, Moments]]:
    """One release's losses as `dp_accounting` lays them on the grid, and their moments: client removed, added."""
    try:
        from dp_accounting.pld import privacy_loss_distribution as distributions
    except ImportError:
        raise MissingExtra("dp-accounting", "privacy") from None
    laplace = isinstance(release, Laplace)
    make = distributions.from_laplace_mechanism if laplace else distributions.from_gaussian_mechanism
    made = make(release.multiplier, value_discretization_interval=interval, sampling_prob=release.rate)
    # The version is pinned: its distributions give no public view of their probabilities.
    removed, added = (_taken(pmf.to_dense_pmf(), interval) for pmf in (made._pmf_remove, made._pmf_add))
    return removed, added


def _taken(pmf: Any, interval: float) -> tuple[Losses, Moments]:
    losses = Losses(interval, pmf._lower_loss, np.asarray(pmf._probs), float(pmf._infinity_mass))
    return losses, moments(losses)
