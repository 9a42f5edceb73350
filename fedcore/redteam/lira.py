"""LiRA's statistics: from confidences of models that saw a record or not, to how well membership is told.

Carlini et al. 2022, arXiv:2112.03570. Pure functions; the models are trained in `membership.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from fedcore.types import Floats

Fit = tuple[Floats, Floats]  # of each record: mean and deviation
Score = Callable[[Floats, Fit, Fit], Floats]
_TINY = 1e-30  # below every probability that float32 keeps apart
_SMALLEST = 1e-3  # deviation under which confidences count as equal
FEW = 64  # fewer shadows than this cannot estimate a variance for each record: section VI-C of the paper


@dataclass(frozen=True)
class Power:
    """How well scores tell members: true positives among `members` with at most `rate` false ones.

    `low` and `high` are Wilson's 95 % interval, which takes the trials as independent.
    """

    rate: float
    caught: int
    members: int
    strangers: int
    low: float
    high: float

    @property
    def tpr(self) -> float:
        """The true positive rate."""
        return self.caught / self.members


def logit_confidence(scores: NDArray[np.float32], y: NDArray[np.float32]) -> Floats:
    """log(p / (1 - p)) of the true class's probability p (n,), from a model's `scores` (n,) or (n, classes).

    1 - p is summed from the other classes, or a confident model's p would round to 1: section VI-A.

    >>> logit_confidence(np.array([[0.75, 0.25]], np.float32), np.array([0.0], np.float32)).round(6)
    array([1.098612])
    """
    wide = scores.astype(np.float64)
    if wide.ndim == 1:
        wide = np.stack([1 - wide, wide], axis=1)
    rows, label = np.arange(len(wide)), y.astype(np.int64)
    own = wide[rows, label]
    others = wide.copy()
    others[rows, label] = 0.0
    found: Floats = np.log(np.maximum(own, _TINY)) - np.log(np.maximum(others.sum(axis=1), _TINY))
    return found


def online(phi: Floats, member: NDArray[np.bool_], shared: bool | None = None) -> Floats:
    """Each model attacked by all others: log likelihood ratio of in and out (models, records).

    `phi` are logit-scaled confidences (models, records), `member` who trained on which record. A
    Gaussian is fitted to each record's confidences in and out; with `shared` (None: with fewer
    than `FEW` models) its variance is that of all records together. NaN where the others hold no
    fit. Algorithm 1.
    """
    return _each(phi, member, shared, lambda own, inside, outside: _log(own, *inside) - _log(own, *outside))


def offline(phi: Floats, member: NDArray[np.bool_], shared: bool | None = None) -> Floats:
    """The same from models without the record alone: how many deviations its confidence lies above theirs.

    Equation 4, before the normal distribution's monotone function.
    """
    return _each(phi, member, shared, lambda own, inside, outside: (own - outside[0]) / outside[1])


def threshold(phi: Floats, member: NDArray[np.bool_], shared: bool | None = None) -> Floats:
    """The confidence itself, one threshold for all records: Yeom et al. 2018, arXiv:1709.01604."""
    return phi.copy()


ATTACKS = {"online": online, "offline": offline, "threshold": threshold}


def roc(members: Floats, strangers: Floats) -> tuple[Floats, Floats]:
    """False and true positive rates at every threshold, from (0, 0) to (1, 1); equal scores fall together."""
    everyone = np.concatenate([members, strangers])
    inside = np.concatenate([np.ones(len(members)), np.zeros(len(strangers))])
    order = np.argsort(-everyone, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(everyone[order])), len(everyone) - 1)
    true = np.append(0.0, np.cumsum(inside[order])[ends]) / len(members)
    false = np.append(0.0, np.cumsum(1 - inside[order])[ends]) / len(strangers)
    return false, true


def power(members: Floats, strangers: Floats, rate: float) -> Power:
    """The most true positives with a false positive rate of at most `rate`."""
    false, true = roc(members, strangers)
    caught = round(float(true[false <= rate].max()) * len(members))
    low, high = wilson(caught, len(members))
    return Power(rate, caught, len(members), len(strangers), low, high)


def balanced_accuracy(members: Floats, strangers: Floats) -> float:
    """(TPR + TNR) / 2 at the best threshold: 0.5 for blind guesses, and a little more by chance."""
    false, true = roc(members, strangers)
    return float(((true + 1 - false) / 2).max())


def area(members: Floats, strangers: Floats) -> float:
    """Area under the curve: 0.5 for blind guesses."""
    false, true = roc(members, strangers)
    return float(np.trapezoid(true, false))


def wilson(hits: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """The interval of a share of `hits` in `trials`: Wilson 1927.

    >>> tuple(round(x, 4) for x in wilson(0, 100))
    (0.0, 0.037)
    """
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share, shrink = hits / trials, 1 + z * z / trials
    middle = (share + z * z / (2 * trials)) / shrink
    half = z * (share * (1 - share) / trials + z * z / (4 * trials**2)) ** 0.5 / shrink
    return max(0.0, middle - half), min(1.0, middle + half)


def _each(phi: Floats, member: NDArray[np.bool_], shared: bool | None, score: Score) -> Floats:
    found = np.empty_like(phi)
    pooled = len(phi) < FEW if shared is None else shared
    for own in range(len(phi)):
        others = np.arange(len(phi)) != own
        inside = _fit(phi[others], member[others], pooled)
        outside = _fit(phi[others], ~member[others], pooled)
        found[own] = score(phi[own], inside, outside)
        found[own, np.isnan(inside[0]) | np.isnan(inside[1]) | np.isnan(outside[0] + outside[1])] = np.nan
    return found


def _fit(phi: Floats, chosen: NDArray[np.bool_], pooled: bool) -> Fit:
    """Mean and deviation of each record's chosen confidences; NaN where there are too few."""
    count = chosen.sum(axis=0)
    total = np.where(chosen, phi, 0.0).sum(axis=0)
    mean = np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
    squares = np.where(chosen, (phi - np.where(count > 0, mean, 0.0)) ** 2, 0.0).sum(axis=0)
    if pooled:
        free = np.maximum(count - 1, 0).sum()
        variance = np.full(count.shape, squares.sum() / free if free else np.nan)
    else:
        variance = np.divide(squares, count - 1, out=np.full(count.shape, np.nan), where=count > 1)
    return mean, np.maximum(np.sqrt(variance), _SMALLEST)


def _log(at: Floats, mean: Floats, deviation: Floats) -> Floats:
    """Log density of a Gaussian, but for a constant."""
    found: Floats = -np.log(deviation) - 0.5 * ((at - mean) / deviation) ** 2
    return found
