"""Record-level privacy inside silos: how records are sampled, and what a round of all silos costs.

Training (`fedcore/local/dp_sgd.py`) and charge read the same `RecordSampling`, so what is charged
is what was done. Row counts are public here: they set rates, steps and weights, so the neighbour
of a silo is one in which one record counts for nothing while the announced count stays.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fedcore.errors import PlanRefused
from fedcore.privacy.accountant import Account
from fedcore.privacy.events import RecordSgd


@dataclass(frozen=True)
class RecordSampling:
    """How a silo draws records in one round: `steps` times, each record with chance `rate`.

    `expected` records a step is what each noisy sum is divided by; the true number is private.
    """

    rate: float
    steps: int
    expected: float


def record_sampling(rows: int, batch_size: int, epochs: int, rate: float | None = None) -> RecordSampling:
    """The sampling of a silo with `rows` records: `batch_size` expected a step, an epoch's short last batch dropped.

    A silo with fewer records than a batch takes all of them in one step an epoch. A given `rate` takes the
    place of the batch: an epoch is then as many steps as take each record once on average.

    >>> record_sampling(100, 32, 2)
    RecordSampling(rate=0.32, steps=6, expected=32.0)
    >>> record_sampling(20, 32, 1)
    RecordSampling(rate=1.0, steps=1, expected=20.0)
    >>> record_sampling(20, 32, 1, rate=0.1)
    RecordSampling(rate=0.1, steps=10, expected=2.0)
    """
    if rate is not None:
        return RecordSampling(rate, epochs * max(1, round(1 / rate)), rate * rows)
    rate = min(1.0, batch_size / rows)
    return RecordSampling(rate, epochs * max(1, rows // batch_size), rate * rows)


def costliest(
    rows: Iterable[int],
    batch_size: int,
    epochs: int,
    noise_multiplier: float,
    rounds: int,
    delta: float,
    rate: float | None = None,
) -> RecordSgd:
    """What one round costs: the event of the silo that pays most, as silos hold disjoint records.

    That is decided by ε at `delta`, over one round and over all `rounds`; where these name two
    silos, the event has the higher rate and the more steps, which costs at least as much as
    either at any time. Parallel composition: McSherry 2009.
    """
    drawn = {record_sampling(count, batch_size, epochs, rate) for count in rows}
    events = [RecordSgd(noise_multiplier, found.rate, found.steps) for found in drawn]
    first, last = (_maximum(_undominated(events), times, delta) for times in (1, rounds))
    highest, steps = max(first.sampling_rate, last.sampling_rate), max(first.steps, last.steps)
    return RecordSgd(noise_multiplier, highest, steps)


def refuse_large_delta(rows: Mapping[str, int], delta: float) -> None:
    """Raise `PlanRefused` if δ is not below one over the records of each silo."""
    silo = max(sorted(rows), key=lambda name: rows[name])
    if delta >= 1 / rows[silo]:
        raise PlanRefused(
            f"privacy.delta {delta:g} with {rows[silo]} records at {silo}: δ must stay below 1/{rows[silo]}, or "
            f"publishing one record whole would count as private; set privacy.delta below {1 / rows[silo]:.2g}"
        )


def _undominated(events: list[RecordSgd]) -> list[RecordSgd]:
    """Those that no other exceeds in both rate and steps: thinning a sample again can only hide more."""
    ordered = sorted(events, key=lambda event: (-event.sampling_rate, -event.steps))
    kept: list[RecordSgd] = []
    for event in ordered:
        if not kept or event.steps > kept[-1].steps:
            kept.append(event)
    return kept


def _maximum(events: list[RecordSgd], rounds: int, delta: float) -> RecordSgd:
    """The event with the largest ε over `rounds`."""
    if len(events) == 1:
        return events[0]
    return max(events, key=lambda event: Account().plus(event, rounds).epsilon(delta))
