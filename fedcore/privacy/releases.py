"""Events as the few mechanisms that accountants know, at sensitivity one, under the account's relation.

An account of client sums is of add-or-remove-one-client. Zeroing a client out is the same there,
because sums are divided by a fixed number. One release whose relation is *replace* turns the whole
account into one of replace: what a replaced client moves is at most twice what an added one does,
so unsampled noise counts half. Amplification by Poisson sampling is proven here for add-or-remove
only, so that such rounds cannot stand beside releases of the relation replace.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from fedcore.errors import BadInput, PlanRefused
from fedcore.privacy.events import (
    Covered,
    DiscreteGaussianSum,
    Event,
    FixedSizeSum,
    GaussianSum,
    Judged,
    LaplaceSum,
    LocalRelease,
    MatrixSums,
    RecordSgd,
    SkellamSum,
)


@dataclass(frozen=True)
class Gaussian:
    """Noise of standard deviation `multiplier` sensitivities, behind Poisson sampling at `rate`."""

    multiplier: float
    rate: float = 1.0


@dataclass(frozen=True)
class Laplace:
    """Noise of scale `multiplier` L1 sensitivities, behind Poisson sampling at `rate`."""

    multiplier: float
    rate: float = 1.0


@dataclass(frozen=True)
class WithoutReplacement:
    """Gaussian noise behind a draw of exactly `cohort` of `population`; sensitivity of replace-one."""

    multiplier: float
    cohort: int
    population: int


@dataclass(frozen=True)
class Skellam:
    """Symmetric Skellam noise of `variance` on integers that one client moves by `l1` and `l2`."""

    variance: float
    l1: float
    l2: float


Release: TypeAlias = Gaussian | Laplace | WithoutReplacement | Skellam


@dataclass(frozen=True)
class Released:
    """How often each mechanism ran, and how far the whole may lie from it in total variation.

    `distance` is of all discrete Gaussian noise from rounded continuous noise, `sampled_distance`
    the part of it that Rényi divergences need too: unsampled discrete Gaussian noise has those of
    the continuous one by itself.
    """

    counts: Mapping[Release, int]
    distance: float
    sampled_distance: float


def released(events: Mapping[Event, int]) -> Released:
    """The mechanisms of `events` (event to how often). Raises `BadInput` where units mix, `PlanRefused` where
    relations cannot be brought together.
    """
    apart = list(_apart(events))
    _refuse_mixed_units([event for event, _ in apart])
    replace = any(event.relation == "replace" for event, _ in apart)
    counts: Counter[Release] = Counter()
    distance = sampled = 0.0
    for event, times in apart:
        for release, repeated in _parts(event, replace):
            counts[release] += repeated * times
        if isinstance(event, DiscreteGaussianSum):
            distant = times * event.dimension * distance_from_gaussian(event.steps)
            distance += distant
            sampled += distant if (event.sampling_rate or 1.0) < 1 else 0.0
    return Released(counts, distance, sampled)


def _apart(events: Mapping[Event, int]) -> Iterable[tuple[Event, int]]:
    """The events and how often, a judged round as its two releases."""
    for event, times in events.items():
        if isinstance(event, Judged):
            yield from _apart({event.training: times})
            yield from _apart({event.evaluation: times})
        else:
            yield event, times


def distance_from_gaussian(steps: float) -> float:
    """Most that a discrete Gaussian differs from a rounded Gaussian, both of deviation `steps`, in total variation.

    With f the continuous density, the rounded one has ∫f(n+t)dt over |t| ≤ ½ at n. By Peano's kernel
    K(t) = (½-|t|)²/2 ≤ ⅛ that differs from f(n) by at most ∫K(t)|f''(n+t)|dt, over all n by at most
    ⅛∫|f''| = φ(1)/(2·steps²). The discrete one has f(n)/Z, and Z - 1 = 2·Σexp(-2π²steps²k²), k ≥ 1,
    by Poisson summation. Total variation is half the sum of both.
    """
    if not steps > 0:
        raise BadInput(f"noise of {steps:g} steps of the grid is no noise; make the grid finer")
    curved = math.exp(-0.5) / math.sqrt(2 * math.pi) / (2 * steps**2)
    ripple = math.exp(-2 * math.pi**2 * steps**2)
    return min(1.0, (curved + 2 * ripple / (1 - ripple)) / 2)


def _refuse_mixed_units(events: Iterable[Event]) -> None:
    units = sorted({event.unit for event in events})
    if len(units) > 1:
        raise BadInput(
            f"one account holds releases of the units {' and '.join(units)}: their ε cannot be added; "
            "give each unit its own privacy.population"
        )


def _parts(event: Event, replace: bool) -> tuple[tuple[Release, int], ...]:
    """What `event` released, and how often."""
    if isinstance(event, Covered):
        return ()
    moved, times = 2.0 if replace else 1.0, 1
    release: Release
    match event:
        case GaussianSum(multiplier, rate) | DiscreteGaussianSum(multiplier, rate):
            release = Gaussian(_noise(multiplier) / moved, _rate(rate, replace))
        case LaplaceSum(multiplier, rate):
            release = Laplace(_noise(multiplier) / moved, _rate(rate, replace))
        case SkellamSum(variance, l1, l2):
            release = Skellam(_noise(variance), l1 * moved, l2 * moved)
        case MatrixSums(multiplier, sensitivity):
            release = Gaussian(_noise(multiplier / sensitivity) / moved)
        case FixedSizeSum():
            release = _fixed_size(event)
        case LocalRelease():
            release = _local(event)
        case RecordSgd(multiplier, rate, steps):
            release, times = Gaussian(_noise(multiplier), _rate(rate, replace)), steps
    return ((release, times),)


def _fixed_size(event: FixedSizeSum) -> Release:
    if not 1 <= event.cohort <= event.population:
        raise BadInput(f"{event.cohort} of {event.population} clients cannot be drawn without replacement")
    multiplier = _noise(event.noise_multiplier) / 2
    if event.cohort == event.population:
        return Gaussian(multiplier)
    return WithoutReplacement(multiplier, event.cohort, event.population)


def _local(event: LocalRelease) -> Release:
    multiplier = _noise(event.noise_multiplier) / 2
    if event.mechanism == "gaussian":
        return Gaussian(multiplier)
    if event.mechanism == "laplace":
        return Laplace(multiplier)
    raise BadInput(
        f"no accountant here covers local noise of kind {event.mechanism!r}; known: gaussian, laplace"
    )


def _noise(multiplier: float) -> float:
    if not 0 < multiplier < math.inf:
        raise BadInput(f"noise {multiplier:g} protects nobody; it must be finite and above 0")
    return multiplier


def _rate(rate: float | None, replace: bool) -> float:
    if rate is None or rate == 1:
        return 1.0
    if not 0 < rate < 1:
        raise BadInput(f"a sampling rate lies in (0, 1], got {rate:g}")
    if replace:
        raise PlanRefused(
            f"a round sampled at rate {rate:g} (one client added or removed) on an account with releases of the "
            "relation replace: no accountant here proves the two together; give it its own privacy.population"
        )
    return rate
