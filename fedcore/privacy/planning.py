"""Before anyone trains: the noise an ε needs or the ε a noise costs, and whether a model could be learned under it.

Pure arithmetic over the accountant. A plan is of releases of client sums; for DP-SGD inside a silo
the same numbers hold with records for clients and steps for rounds.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from fedcore.config.evaluate import is_due, times_due
from fedcore.errors import BadInput, PlanRefused
from fedcore.privacy.accountant import Account, Spent
from fedcore.privacy.calibrate import calibrate
from fedcore.privacy.events import Event, FixedSizeSum, GaussianSum, Judged

Sampling = Literal["poisson", "fixed", "none"]
REASONABLE = 2.0  # noise on the mean over the clip up to which training was seen to work: a rule of thumb
MOST_NOISE = 0.1  # deviation that noise may give a share of an evaluation: an accuracy says little beyond
_CURVE_POINTS = 40


@dataclass(frozen=True)
class Question:
    """What is planned: `rounds` sums at `delta`, each over a cohort drawn at `rate` of the `clients`.

    Each `every` rounds, and after the last, a noisy `evaluation` is released too (None: never).
    `sampling` is ``poisson`` (a secret draw, client by client), ``fixed`` (exactly rate · clients
    of them, in secret) or ``none`` (everyone, or whoever is there: no amplification). `clients` and
    `dimension`, the model's number of parameters, may be unknown.
    """

    sampling: Sampling
    rate: float
    rounds: int
    delta: float
    clients: int | None = None
    dimension: int | None = None
    evaluation: GaussianSum | None = None
    every: int = 1


@dataclass(frozen=True)
class Affordable:
    """How many of a run's rounds a budget pays for, and what the arithmetic is.

    `costs` are ε after a number of rounds: after the first, the last one affordable, the one after it, and all.
    """

    rounds: int
    of: int
    limit: float
    costs: Mapping[int, float]

    @property
    def words(self) -> str:
        """The number and its arithmetic in a sentence without its end."""
        told = ", ".join(f"{n} cost ε = {cost:.4g}" for n, cost in sorted(self.costs.items()))
        all_of = "all of " if self.rounds == self.of else f"{self.rounds} of "
        return f"a budget of ε = {self.limit:g} affords {all_of}{self.of} rounds on an account of its own ({told})"


@dataclass(frozen=True)
class Answer:
    """The noise multiplier, what it costs, ε after a number of rounds, and noise against signal.

    `noise_ratio` is the expected length of the noise on the mean over the clip, None where clients
    or dimension are unknown; `least_clients` the population from which on it is at most
    `REASONABLE`, at the same rate and noise, None where the dimension is unknown; `affordable` how many rounds
    the budget pays for, None where none was named.
    """

    noise_multiplier: float
    spent: Spent
    curve: tuple[tuple[int, float], ...]
    noise_ratio: float | None
    least_clients: int | None
    affordable: Affordable | None = None


def answer(
    question: Question,
    *,
    epsilon: float | None = None,
    noise_multiplier: float | None = None,
    budget: float | None = None,
) -> Answer:
    """What `question` costs at `noise_multiplier`, or the noise with which it keeps `epsilon`: one of the two.

    `budget` is the ε that the rounds are paid from, where it is not `epsilon`.
    Raises `BadInput` for numbers that make no sense, each with the reason.
    """
    if (epsilon is None) == (noise_multiplier is None):
        raise BadInput("give exactly one of --epsilon and --noise-multiplier: the other one is the answer")
    _refuse_nonsense(question)
    event = _event(question)
    if epsilon is not None:
        beside = _evaluations(question, question.rounds)
        noise_multiplier = calibrate(event, question.rounds, question.delta, epsilon, beside)
    assert noise_multiplier is not None, "one of the two was given"
    if not 0 < noise_multiplier < math.inf:
        raise BadInput(
            f"noise multiplier must be above 0, got {noise_multiplier:g}: without noise nothing is private"
        )
    release = event(noise_multiplier)

    def after(rounds: int) -> Account:
        return _evaluations(question, rounds).plus(release, rounds)

    within = budget if epsilon is None else epsilon
    rate, known = _rate(question), question.clients is not None and question.dimension is not None
    return Answer(
        noise_multiplier,
        after(question.rounds).spent(question.delta),
        tuple((n, after(n).epsilon(question.delta)) for n in _points(question.rounds)),
        noise_ratio(question.clients or 0, rate, noise_multiplier, question.dimension or 0)
        if known
        else None,
        least_clients(rate, noise_multiplier, question.dimension, REASONABLE) if question.dimension else None,
        None
        if within is None
        else affordable(_by_round(question, release), question.rounds, question.delta, within),
    )


def affordable(event: Callable[[int], Event], rounds: int, delta: float, limit: float) -> Affordable:
    """How many of `rounds` rounds, the n-th of which releases ``event(n)``, stay within ε `limit` at `delta`."""
    releases = [event(number) for number in range(rounds)]

    @cache
    def cost(count: int) -> float:
        return Account(Counter(releases[:count])).epsilon(delta) if count else 0.0

    low, high = 0, rounds + 1  # the first `low` are affordable, `high` are not
    if cost(rounds) <= limit:
        low = rounds
    while high - low > 1 and low < rounds:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) <= limit else (low, middle)
    wanted = {1, low, min(low + 1, rounds), rounds} - {0}
    return Affordable(low, rounds, limit, {count: cost(count) for count in sorted(wanted)})


def noise_ratio(clients: int, rate: float, noise_multiplier: float, dimension: int) -> float:
    """R = z·√d/(q·N): the length of the noise on the mean of a cohort's updates, in clips.

    >>> round(noise_ratio(10_000, 0.05, 6.0, 650), 2)
    0.31
    """
    return noise_multiplier * math.sqrt(dimension) / (rate * clients)


def least_clients(rate: float, noise_multiplier: float, dimension: int, ratio: float) -> int:
    """The smallest population whose noise on the mean is at most `ratio` clips long: N ≥ z·√d/(q·R).

    >>> least_clients(0.05, 6.0, 650, REASONABLE)
    1530
    """
    return math.ceil(noise_multiplier * math.sqrt(dimension) / (rate * ratio))


def refuse_hopeless(
    clients: int, rate: float, noise_multiplier: float, dimension: int, max_ratio: float
) -> None:
    """Raise `PlanRefused` where client-level noise would drown what the clients say, with the way out."""
    ratio = noise_ratio(clients, rate, noise_multiplier, dimension)
    if ratio <= max_ratio:
        return
    needed = least_clients(rate, noise_multiplier, dimension, max_ratio)
    raise PlanRefused(
        f"client-level privacy over {clients} clients: noise multiplier {noise_multiplier:.4g} on the sum is noise of "
        f"{noise_multiplier:.4g}·√{dimension}/({rate:g}·{clients}) = {ratio:.3g} clips on the mean, above "
        f"privacy.max_noise_ratio {max_ratio:g}; have at least {needed:,} clients, or protect the records inside each "
        "silo with privacy.unit: record and privacy.mode: record"
    )


def _event(question: Question) -> Callable[[float], Event]:
    if question.sampling == "fixed":
        cohort, clients = _cohort(question), question.clients
        assert clients is not None, "_cohort refuses a fixed cohort of an unknown population"
        return lambda multiplier: FixedSizeSum(multiplier, cohort, clients)
    rate = question.rate if question.sampling == "poisson" and question.rate < 1 else None
    return lambda multiplier: GaussianSum(multiplier, rate)


def _evaluations(question: Question, rounds: int) -> Account:
    """The evaluations of the first `rounds` rounds."""
    if question.evaluation is None:
        return Account()
    return Account().plus(question.evaluation, times_due(rounds, question.every, question.rounds))


def _by_round(question: Question, release: Event) -> Callable[[int], Event]:
    """Which event each round is, from 0."""
    if question.evaluation is None:
        return lambda number: release
    judged = Judged(release, question.evaluation)
    return lambda number: judged if is_due(number + 1, question.every, question.rounds) else release


def _cohort(question: Question) -> int:
    if question.clients is None:
        raise BadInput("a fixed cohort is so many of so many clients; say how many there are with --clients")
    return max(1, round(question.rate * question.clients))


def _rate(question: Question) -> float:
    """The share of the clients in an average cohort."""
    if question.sampling == "fixed" and question.clients:
        return _cohort(question) / question.clients
    return question.rate if question.sampling == "poisson" else 1.0


def _refuse_nonsense(question: Question) -> None:
    if not 0 < question.rate <= 1:
        raise BadInput(
            f"sampling rate must lie in (0, 1], got {question.rate:g}: it is the share of the clients in a cohort"
        )
    if question.rounds < 1:
        raise BadInput(f"rounds must be 1 or more, got {question.rounds}")
    if not 0 < question.delta < 1:
        raise BadInput(f"delta must lie between 0 and 1, got {question.delta:g}")
    if question.clients is not None and question.clients < 1:
        raise BadInput(f"clients must be 1 or more, got {question.clients}")
    if question.dimension is not None and question.dimension < 1:
        raise BadInput(
            f"dimension must be 1 or more, got {question.dimension}: it is the model's number of parameters"
        )
    if question.clients and question.delta >= 1 / question.clients:
        raise BadInput(
            f"delta {question.delta:g} with {question.clients} clients must stay below 1/{question.clients}, or "
            f"publishing one client whole would count as private; give a delta below {1 / question.clients:.2g}"
        )


def _points(rounds: int) -> list[int]:
    """Numbers of rounds from 1 to `rounds`, closer at the start, where ε rises like a root."""
    return sorted(
        {max(1, round(rounds * (i / _CURVE_POINTS) ** 2)) for i in range(1, _CURVE_POINTS + 1)} | {1}
    )
