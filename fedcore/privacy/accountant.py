"""From events to ε: privacy loss distributions, through google's dp-accounting."""

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

from fedcore.errors import BadConfig, BadInput, MissingExtra
from fedcore.privacy.events import Event, GaussianSum


def epsilon(events: Iterable[Event], delta: float) -> float:
    """The ε at `delta` of all `events` together, add-or-remove-one-client; 0 for none.

    Koskela et al. 2020, arXiv:1906.03049 (privacy loss distributions), as `dp_accounting` computes it.
    """
    if not 0 < delta < 1:
        raise BadConfig("privacy.delta", delta, "must lie between 0 and 1")
    counts = Counter(events)
    return _composed(tuple(sorted(counts.items(), key=repr)), delta) if counts else 0.0


@lru_cache(maxsize=4096)
def _composed(counts: tuple[tuple[Event, int], ...], delta: float) -> float:
    try:
        import dp_accounting
        from dp_accounting.pld import PLDAccountant
    except ImportError:
        raise MissingExtra("dp-accounting", "privacy") from None
    accountant = PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    for event, count in counts:
        if not isinstance(event, GaussianSum):
            raise BadInput(f"no accountant here covers an event of kind {event.kind}")
        release = dp_accounting.GaussianDpEvent(event.noise_multiplier)
        if event.sampling_rate is not None and event.sampling_rate < 1:
            release = dp_accounting.PoissonSampledDpEvent(event.sampling_rate, release)
        accountant.compose(release, count)
    return float(accountant.get_epsilon(delta))
