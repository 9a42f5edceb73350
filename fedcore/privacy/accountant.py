"""From events to ε: loss distributions first, Rényi divergences beside them; what neither proves is refused."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from fedcore.errors import BadConfig, PlanRefused
from fedcore.privacy.events import Event
from fedcore.privacy.pld import pld_epsilon
from fedcore.privacy.rdp import rdp_epsilon
from fedcore.privacy.releases import Released, released

_SHARE = 0.1  # of δ that the grid of discrete Gaussian noise may take


@dataclass(frozen=True)
class Spent:
    """ε by privacy loss distributions and by Rényi divergences; None where an accountant proves nothing."""

    pld: float | None
    rdp: float | None

    @property
    def epsilon(self) -> float:
        """The ε that counts: of the loss distributions where they are known, else of Rényi divergences."""
        proven = self.rdp if self.pld is None else self.pld
        assert proven is not None, "the accountant refuses what nothing proves"
        return proven


@dataclass(frozen=True)
class Account:
    """What was released together: events and how often. Asking after one more costs milliseconds.

    >>> Account().plus(GaussianSum(100, None), 1000).epsilon(1e-5)  # doctest: +SKIP
    1.199
    """

    counts: Mapping[Event, int] = field(default_factory=dict)

    def plus(self, event: Event, times: int = 1) -> "Account":
        """The account after `times` more such releases."""
        return Account({**self.counts, event: self.counts.get(event, 0) + times}) if times else self

    def epsilon(self, delta: float) -> float:
        """The ε that counts, at `delta`. Raises `BadInput` and `PlanRefused` as `spent` does."""
        found = _by_pld(self._released(delta), delta)
        return self.spent(delta).epsilon if found is None else found

    def spent(self, delta: float) -> Spent:
        """ε at `delta` by both accountants.

        Raises `BadConfig` for a δ outside (0, 1), `BadInput` for noise that is none or units that
        mix, `PlanRefused` where neither accountant proves a finite ε.
        """
        together = self._released(delta)
        found = Spent(_by_pld(together, delta), _by_rdp(together, delta))
        if found.pld is None and found.rdp is None:
            raise PlanRefused(_unproven(together, delta))
        return found

    def _released(self, delta: float) -> Released:
        if not 0 < delta < 1:
            raise BadConfig("privacy.delta", delta, "must lie between 0 and 1")
        return _released(tuple(sorted(self.counts.items(), key=repr)))


def spent(events: Iterable[Event], delta: float) -> Spent:
    """ε at `delta` of all `events` together by both accountants: see `Account.spent`."""
    return Account(Counter(events)).spent(delta)


def epsilon(events: Iterable[Event], delta: float) -> float:
    """The ε that counts, at `delta`, of all `events` together; 0 for none: see `Account.epsilon`."""
    return Account(Counter(events)).epsilon(delta)


@lru_cache(maxsize=256)
def _released(counts: tuple[tuple[Event, int], ...]) -> Released:
    return released(dict(counts))


def _by_pld(together: Released, delta: float) -> float | None:
    found = _beside(lambda rest: pld_epsilon(together.counts, rest), together.distance, delta)
    return None if found is None or math.isinf(found) else found


def _by_rdp(together: Released, delta: float) -> float | None:
    found = _beside(lambda rest: rdp_epsilon(together.counts, rest), together.sampled_distance, delta)
    return None if found is None or math.isinf(found) else found


def _beside(ask: Callable[[float], float | None], distance: float, delta: float) -> float | None:
    """ε of what lies within total variation `distance` of a mechanism whose ε at δ is ``ask(δ)``.

    Being that far away costs (1 + e^ε)·distance of δ: P ≤ P' + tv ≤ e^ε·Q' + δ' + tv ≤ e^ε·(Q + tv) + δ' + tv.
    None where it would take more than a tenth of `delta`.
    """
    if distance == 0:
        return ask(delta)
    least = ask(delta * (1 - _SHARE))
    if least is None or least > 500 or (1 + math.exp(least)) * distance > _SHARE * delta:
        return None
    return ask(delta - (1 + math.exp(least)) * distance)


def _unproven(together: Released, delta: float) -> str:
    kinds = ", ".join(sorted({type(release).__name__ for release in together.counts}))
    if together.sampled_distance > 0:
        return (
            f"discrete Gaussian noise on sampled cohorts lies up to {together.sampled_distance:.2g} from the Gaussian "
            f"in total variation, too far for δ {delta:g}; make the grid finer, or use cohort.sampling: all"
        )
    return (
        f"no accountant here proves an ε at δ {delta:g} for {kinds} together; choose one mechanism for the population, "
        "or give it its own privacy.population"
    )
