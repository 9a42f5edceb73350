"""A round on the virtual clock: when each device of a cohort begins and ends, whose reply counts, when the round ends.

The server waits for the first so many replies, or until the deadline. It does not learn that a device
is lost; it waits for it as for a slow one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Self

from fedcore.clock.devices import Devices, Work
from fedcore.types import Json

Fate = Literal["counted", "late", "dropped", "flat"]
Charge = tuple[float, float]  # a battery's level, and since when it is known
ATTEMPTS = 10
_APART = 1_000_000  # rounds between the numbers of a round's attempts
Battery = Callable[[str], Charge | None]  # client -> what is known of its battery, None: full


@dataclass(frozen=True)
class Visit:
    """What one device of the cohort did.

    It waited from the round's start until `begin`, then did its `work` as far as the time `until`: all of
    it where its reply is ``counted``; to the round's end where it was ``late``; less where it was lost,
    ``dropped`` or with a ``flat`` battery. `level` is its battery's then.
    """

    client: str
    begin: float
    work: Work
    fate: Fate
    until: float
    level: float


@dataclass(frozen=True)
class Schedule:
    """The visits of a round in the order of names, and the virtual times at which it began and ended.

    Of a round that was repeated, `visits` are those of the last of the `attempts`.
    """

    begins: float
    ends: float
    visits: tuple[Visit, ...]
    attempts: int = 1

    @property
    def counted(self) -> tuple[str, ...]:
        """Clients whose replies count."""
        return tuple(visit.client for visit in self.visits if visit.fate == "counted")

    def to_json(self) -> Json:
        """As it is journaled."""
        visits = [[v.client, v.begin, *v.work, v.fate, v.until, v.level] for v in self.visits]
        return {"begins": self.begins, "ends": self.ends, "attempts": self.attempts, "visits": visits}

    @classmethod
    def from_json(cls, tree: Json) -> Self:
        """The inverse of `to_json`."""
        visits = (
            Visit(name, at, Work(*work), fate, until, level)
            for name, at, *work, fate, until, level in tree["visits"]
        )
        return cls(tree["begins"], tree["ends"], tuple(visits), tree["attempts"])


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
        self,
        now: float,
        number: int,
        cohort: Sequence[str],
        down: int,
        up: int,
        battery: Battery,
        needed: int = 0,
    ) -> Schedule:
        """The round `number` that begins at `now`, each of the cohort getting `down` bytes and sending `up`.

        Where fewer than `needed` answered, all are asked again, `ATTEMPTS` times at most.
        """
        charges = {client: battery(client) for client in sorted(cohort)}
        found = self._attempt(now, number, down, up, charges)
        for attempt in range(1, ATTEMPTS):
            if len(found.counted) >= needed:
                break
            charges = {visit.client: (visit.level, visit.until) for visit in found.visits}
            again = self._attempt(found.ends, number + attempt * _APART, down, up, charges)
            found = replace(again, begins=now, attempts=attempt + 1)
        return found

    def _attempt(
        self, now: float, number: int, down: int, up: int, charges: Mapping[str, Charge | None]
    ) -> Schedule:
        """The round as far as it comes without being repeated."""
        visits = [self._visit(client, number, now, down, up, known) for client, known in charges.items()]
        deadline = now + self.deadline
        arrived = sorted((v.until, v.client) for v in visits if v.fate == "counted" and v.until <= deadline)
        awaited = self.awaited(len(visits))
        first = arrived if self.fixed else arrived[:awaited]
        early = not self.fixed and len(first) == awaited
        end = max((until for until, _ in first), default=now) if early else deadline
        counted = {client for _, client in first}
        seen = (v if v.client in counted else self._cut(v, end, charges[v.client]) for v in visits)
        return Schedule(now, end, tuple(seen))

    def _visit(self, client: str, number: int, now: float, down: int, up: int, known: Charge | None) -> Visit:
        """What the device would do if nobody cut it short."""
        devices = self.devices
        begin = devices.start(client, now, known)
        work = devices.work(client, number, self.trained(client), down, up)
        ends: list[tuple[float, Fate]] = [(begin + work.total, "counted")]
        if devices.drops(client, number):
            ends.append((begin + devices.part(client, number) * work.total, "dropped"))
        ends.append((begin + devices.lasts(self._level(known, begin)), "flat"))
        until, fate = min(ends, key=lambda end: end[0])
        return Visit(client, begin, work, fate, until, self._left(known, begin, until))

    def _cut(self, visit: Visit, end: float, known: Charge | None) -> Visit:
        """A visit whose reply does not count: the server stops the device when the round ends, unless it was lost before."""
        if visit.fate != "counted" and visit.until <= end:
            return visit
        begin = min(visit.begin, end)
        return Visit(visit.client, begin, visit.work, "late", end, self._left(known, begin, end))

    def _level(self, known: Charge | None, now: float) -> float:
        return self.devices.level(*known, now) if known else 1.0

    def _left(self, known: Charge | None, begin: float, until: float) -> float:
        """The battery's level at `until` after work since `begin`."""
        return max(0.0, self.devices.drained(self._level(known, begin), until - begin))
