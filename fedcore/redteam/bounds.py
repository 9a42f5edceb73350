"""How private a release was at most: lower bounds on ε from what an auditor could tell about its canaries.

Each canary was included or not by a coin of its own; the auditor guesses coins from scores, or compares
the scores of both sides. The first bound is a theorem, the other two hold under the hypothesis their
docstrings name. A bound above the accountant's is evidence of a bug, at the confidence it was asked for.
"""

from collections.abc import Callable
from importlib import import_module
from math import exp, sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import BadInput, MissingExtra
from fedcore.types import Floats

_MOST = 1e3  # μ beyond which nothing is private: what is asked of the tails there is zero in float64
_HALVINGS = 45


class Guesses(NamedTuple):
    """How many coins were guessed, and how many of them rightly."""

    made: int
    correct: int


def guess(scores: Floats, included: NDArray[np.bool_], each: int) -> Guesses:
    """Call the `each` highest scores (m,) included, the `each` lowest not, and say nothing of the rest.

    `each` must be declared before the scores are seen. Ties go to the canary of the lower number.
    Raises `BadInput` unless 1 ≤ each ≤ m / 2.
    """
    if not 1 <= each <= len(scores) // 2:
        raise BadInput(
            f"guesses must be between 1 and {len(scores) // 2} a side for {len(scores)} canaries, got {each}; "
            "change --guesses or --canaries"
        )
    order = np.argsort(scores, kind="stable")
    right = int(included[order[-each:]].sum() + (~included[order[:each]]).sum())
    return Guesses(2 * each, right)


def one_run_epsilon(canaries: int, guesses: Guesses, delta: float, confidence: float = 0.95) -> float:
    """The ε below which an (ε, δ)-private algorithm lets nobody guess that well; 0 where that says nothing.

    Holds whatever the algorithm and the scores. Steinke, Nasr, Jagielski 2023, arXiv:2305.08846, theorem 5.2.
    """
    alarm = _alarm(confidence)
    return _largest(lambda eps: one_run_p_value(canaries, guesses, eps, delta) < alarm, 60.0)


def one_run_p_value(canaries: int, guesses: Guesses, eps: float, delta: float) -> float:
    """The most likely it is, for any (ε, δ)-private algorithm, that so many or more guesses are right.

    P[W ≥ v] + 2 m δ · max over i ≤ v of P[v > W ≥ v − i] / i, W ~ Binomial(r, e^ε / (1 + e^ε)). Steinke,
    Nasr, Jagielski 2023, arXiv:2305.08846, theorem 5.2.
    """
    binom = _scipy("stats").binom
    made, correct = guesses
    chance = 1 / (1 + exp(-eps))
    luck = float(binom.sf(correct - 1, made, chance))
    if not correct or not delta:
        return min(1.0, luck)
    short = np.arange(1, correct + 1)
    below = np.cumsum(binom.pmf(correct - short, made, chance))
    return min(1.0, luck + 2 * canaries * delta * float(np.max(below / short)))


def f_dp_epsilon(canaries: int, guesses: Guesses, delta: float, confidence: float = 0.95) -> float:
    """The same bound, tighter, under the hypothesis that the algorithm's trade-off curve is Gaussian.

    Under that hypothesis it is proven; a Poisson-sampled sum of noisy rounds only comes near it, so call
    the number "under the Gaussian f-DP hypothesis". Mahloujifar, Melis, Chaudhuri 2024, arXiv:2410.22235.
    """
    alarm = _alarm(confidence)
    return gaussian_epsilon(_largest(lambda mu: not f_dp_holds(canaries, guesses, mu, alarm), 30.0), delta)


def f_dp_holds(canaries: int, guesses: Guesses, mu: float, alarm: float) -> bool:
    """Whether a μ-Gaussian-private algorithm can let an auditor guess that well with probability `alarm`.

    The probabilities of exactly i right guesses, largest i first, are made as large as the trade-off curve
    allows, as masses of right (i / m) and of wrong guesses ((r − i) / m); all of them together may not need more
    than r / m. Mahloujifar, Melis, Chaudhuri 2024, arXiv:2410.22235, theorem 9 and algorithm 2.
    """
    special = _scipy("special")
    made, correct = guesses
    right, wrong = alarm * correct / canaries, alarm * (made - correct) / canaries
    for fewer in range(correct - 1, -1, -1):
        least = max(wrong, float(special.ndtr(special.ndtri(right) - mu)))
        right, wrong = right + fewer / (made - fewer) * (least - wrong), least
        if right + wrong > made / canaries:
            return False
    return True


def gaussian_limit_epsilon(
    included: Floats, excluded: Floats, delta: float, confidence: float = 0.95
) -> float:
    """The lower confidence limit of ε if both sides' scores are normal with one variance: a model, no proof.

    The gap of the means over the pooled deviation estimates μ of Gaussian privacy, less the normal quantile of
    `confidence` times its standard error √(1/a + 1/b + μ²/2(a + b − 2)). Andrew et al. 2023, arXiv:2302.03098,
    section 3, for the model; Hedges and Olkin 1985, chapter 5, for the error. 0 with fewer than two scores a side.
    """
    a, b = len(included), len(excluded)
    if min(a, b) < 2:
        return 0.0
    pooled = sqrt(((a - 1) * included.var(ddof=1) + (b - 1) * excluded.var(ddof=1)) / (a + b - 2))
    gap = float(included.mean() - excluded.mean())
    mu = min(_MOST, gap / pooled) if pooled > 0 else (_MOST if gap > 0 else 0.0)
    error = sqrt(1 / a + 1 / b + mu * mu / (2 * (a + b - 2)))
    return gaussian_epsilon(mu - float(_scipy("special").ndtri(1 - _alarm(confidence))) * error, delta)


def gaussian_epsilon(mu: float, delta: float) -> float:
    """ε at `delta` of μ-Gaussian privacy, 0 for μ ≤ 0.

    The root of δ = Φ(μ/2 − ε/μ) − e^ε Φ(−μ/2 − ε/μ). Dong, Roth, Su 2019, arXiv:1905.02383, corollary 2.13.
    """
    if mu <= 0:
        return 0.0
    special = _scipy("special")

    def spent(eps: float) -> float:
        tail = np.exp(eps + special.log_ndtr(-mu / 2 - eps / mu))
        return float(special.ndtr(mu / 2 - eps / mu) - tail)

    return _largest(lambda eps: spent(eps) > delta, mu * mu / 2 - mu * float(special.ndtri(delta)))


def _largest(holds: Callable[[float], bool], top: float) -> float:
    """The largest number up to `top` for which `holds`, which it does not above it; 0 if it never does."""
    low, high = 0.0, top
    if not holds(low):
        return 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _alarm(confidence: float) -> float:
    if not 0.5 <= confidence < 1:
        raise BadInput(f"confidence must be at least 0.5 and below 1, got {confidence:g}; 0.95 is usual")
    return 1 - confidence


def _scipy(part: str) -> Any:
    try:
        return import_module(f"scipy.{part}")
    except ModuleNotFoundError:
        raise MissingExtra("scipy", "privacy") from None
