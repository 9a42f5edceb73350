"""A round on the virtual clock: when each device of a cohort begins and ends, whose reply counts, when the round ends.

The server waits for the first so many replies, or until the deadline. It does not learn that a device
is lost; it waits for it as for a slow one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

from fedcore.clock.devices import Devices, Work
from fedcore.types import Json

Fate = Literal["counted", "late", "dropped", "flat"]
Charge = tuple[float, float]  # a battery's level, and since when it is known
Battery = Callable[[str], Charge | None]  # client -> what is known of its battery, None: full


@dataclass(frozen=True)
class Visit:
    """What one device of the cohort did.

    It waited from the round's start until `begin`, then did its `work` as far as the time `until`: all of
    it where its reply is ``counted``; to the round's end where it was ``late``; less where it was lost,
    ``dropped`` or with a ``flat`` battery.
    """

    client: str
    begin: float
    work: Work
    fate: Fate
    until: float


@dataclass(frozen=True)
class Schedule:
    """The visits of a round in the order of names, and the virtual times at which it began and ended."""

    begins: float
    ends: float
    visits: tuple[Visit, ...]

    @property
    def counted(self) -> tuple[str, ...]:
        """Clients whose replies count."""
        return tuple(visit.client for visit in self.visits if visit.fate == "counted")

    def to_json(self) -> Json:
        """As it is journaled."""
        visits = [[v.client, v.begin, *v.work, v.fate, v.until] for v in self.visits]
        return {"begins": self.begins, "ends": self.ends, "visits": visits}

    @classmethod
    def from_json(cls, tree: Json) -> Self:
        """The inverse of `to_json`."""
        visits = (
            Visit(name, at, Work(*work), fate, until) for name, at, *work, fate, until in tree["visits"]
        )
        return cls(tree["begins"], tree["ends"], tuple(visits))


@dataclass(frozen=True)
class Timing:
    """How the rounds of a plan pass on the virtual clock.

    `waits_for` is the number of replies that end a round, None: those of all that were asked.
    Where it must not show who was asked, a round is `fixed`: it lasts until the deadline.
    `batches` are the batch sizes of the classes whose memory is too small for that of the settings.
    """

    devices: Devices
    trained: Callable[[str], int]  # client -> rows it goes through in a round, all epochs together
    deadline: float
    waits_for: int | None = None
    fixed: bool = False
    batches: Mapping[str, int] = field(default_factory=dict)

    def awaited(self, asked: int) -> int:
        """How many replies a round with `asked` clients waits for."""
        return asked if self.waits_for is None else min(asked, self.waits_for)

    def batch_sizes(self, clients: Sequence[str]) -> dict[str, int]:
        """The batch sizes of those of `clients` that train with smaller ones."""
        kinds = {client: self.devices.kind(client).name for client in clients if self.batches}
        return {client: self.batches[kind] for client, kind in kinds.items() if kind in self.batches}

    def schedule(
        self, now: float, number: int, cohort: Sequence[str], down: int, up: int, battery: Battery
    ) -> Schedule:
        """The round `number` that begins at `now`, each of the cohort getting `down` bytes and sending `up`."""
        visits = [self._visit(client, number, now, down, up, battery(client)) for client in sorted(cohort)]
        deadline = now + self.deadline
        arrived = sorted((v.until, v.client) for v in visits if v.fate == "counted" and v.until <= deadline)
        awaited = self.awaited(len(cohort))
        first = arrived if self.fixed else arrived[:awaited]
        early = not self.fixed and len(first) == awaited
        end = max((until for until, _ in first), default=now) if early else deadline
        counted = {client for _, client in first}
        return Schedule(now, end, tuple(v if v.client in counted else _cut(v, end) for v in visits))

    def level_after(self, visit: Visit, before: Charge | None) -> float:
        """The battery's level at `visit.until`; `before` is what was known of it, None: full."""
        begins = self.devices.level(*before, visit.begin) if before else 1.0
        return max(0.0, self.devices.drained(begins, visit.until - visit.begin))

    def _visit(
        self, client: str, number: int, now: float, down: int, up: int, before: Charge | None
    ) -> Visit:
        """What the device would do if nobody cut it short."""
        devices = self.devices
        begin = devices.start(client, now, before)
        work = devices.work(client, number, self.trained(client), down, up)
        ends: list[tuple[float, Fate]] = [(begin + work.total, "counted")]
        if devices.drops(client, number):
            ends.append((begin + devices.part(client, number) * work.total, "dropped"))
        ends.append((begin + devices.lasts(devices.level(*before, begin) if before else 1.0), "flat"))
        until, fate = min(ends, key=lambda end: end[0])
        return Visit(client, begin, work, fate, until)


def _cut(visit: Visit, end: float) -> Visit:
    """A visit whose reply does not count: the server stops the device when the round ends, unless it was lost before."""
    if visit.fate != "counted" and visit.until <= end:
        return visit
    return Visit(visit.client, min(visit.begin, end), visit.work, "late", end)
