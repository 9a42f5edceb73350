"""Simulated devices as pure functions: nothing is remembered, so nothing can be lost when a run is killed.

What a device does follows from the seed, its class, its name and the number of the round (or, where
there are no rounds, of the client's task). Times are virtual seconds since the run began. The one
thing that depends on what a device did before, its battery, is handed in.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf, pi, sqrt
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from fedcore.config import AvailabilityConfig, Config, DeviceClass, TimeConfig
from fedcore.errors import BadConfig, BadInput
from fedcore.rng import fraction, generator
from fedcore.types import Floats

_MILLION = 1e6


class Work(NamedTuple):
    """How long the parts of one task take, in seconds."""

    down: float
    train: float
    up: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.down + self.train + self.up


class Charges(NamedTuple):
    """What was last known of batteries: the level, from 0 to 1, at the time `since`; both (clients,) or numbers."""

    level: Floats
    since: Floats


@dataclass(frozen=True)
class Devices:
    """The devices of `clients`, one each. What is kept of a client is two numbers, made when first asked for."""

    seed: int
    time: TimeConfig
    clients: tuple[str, ...]  # sorted

    @classmethod
    def of(cls, config: Config, clients: Sequence[str]) -> Self:
        """The devices that ``config.time`` describes. Raises `BadConfig` for windows that are none."""
        if config.time.availability:
            _refuse_windows(config.time.availability)
        if config.time.jitter_law != "lognormal" and config.time.jitter > 1:
            raise BadConfig(
                "time.jitter",
                config.time.jitter,
                f"must be at most 1 where time.jitter_law is {config.time.jitter_law}",
            )
        names = [kind.name for kind in config.time.classes]
        if len(set(names)) < len(names):
            raise BadConfig("time.classes", names, "every class needs a name of its own")
        return cls(config.seed, config.time, tuple(sorted(clients)))

    def kind(self, client: str) -> DeviceClass:
        """The class of a client's device: each class has its share of the clients, rounded, whoever they are."""
        return self.time.classes[int(self.kinds[self.place(client)])]

    def start(self, client: str, now: float, charge: tuple[float, float] | None = None) -> float:
        """The first time from `now` on at which the device may start: within a window, and charged.

        `charge` is what was last known of its battery, (level, since); None: full.
        """
        ready = now
        battery = self.time.battery
        if battery and charge:
            level, since = charge
            ready = max(now, since + (battery.limit - level) * battery.charge_s)
        return float(self._opens(self._phase_of(client), np.array(ready)))

    def starts(self, now: float, charges: Charges | None = None) -> Floats:
        """`start` of every client at once, in their order."""
        ready = np.full(len(self.clients), now)
        battery = self.time.battery
        if battery and charges:
            ready = np.maximum(ready, charges.since + (battery.limit - charges.level) * battery.charge_s)
        return self._opens(self.phases, ready)

    def work(self, client: str, number: int, rows: int, down_bytes: int, up_bytes: int) -> Work:
        """How long a task takes: `rows` are those of all epochs together, `number` tells it from the client's others."""
        kind = self.kind(client)
        train = kind.delay_s + kind.seconds_per_row * rows
        if self.time.jitter:
            rng = generator(self.seed, "jitter", number, client)
            train *= _JITTERS[self.time.jitter_law](self.time.jitter, rng)
        return Work(
            kind.latency_s + _transfer(down_bytes, kind.down_mbps),
            train,
            kind.latency_s + _transfer(up_bytes, kind.up_mbps),
        )

    def duration(self, client: str, number: int, rows: int, model_bytes: int) -> float:
        """The whole of `work` with a model of `model_bytes` both ways, in seconds."""
        return self.work(client, number, rows, model_bytes, model_bytes).total

    def drops(self, client: str, number: int) -> bool:
        """Whether the device is lost during the task."""
        own = self.kind(client).dropout
        chance = self.time.dropout if own is None else own
        return chance > 0 and fraction(self.seed, "drop", number, client) < chance

    def part(self, client: str, number: int) -> float:
        """The part of its work, from 0 to 1, after which a device that `drops` is lost."""
        return fraction(self.seed, "part", number, client)

    def level(self, level: float, since: float, now: float) -> float:
        """The battery's level at `now`, having rested since it was `level`; 1 without batteries."""
        battery = self.time.battery
        return min(1.0, level + max(0.0, now - since) / battery.charge_s) if battery else 1.0

    def lasts(self, level: float) -> float:
        """Seconds of work that a battery at `level` is good for; no end without batteries."""
        battery = self.time.battery
        return level * battery.work_s if battery else inf

    def drained(self, level: float, seconds: float) -> float:
        """The battery's level after `seconds` of work: below 0 where it ends before the work does."""
        battery = self.time.battery
        return level - seconds / battery.work_s if battery else level

    def place(self, client: str) -> int:
        """The number of `client` among `clients`. Raises `BadInput` for a client that is not there."""
        place = bisect_left(self.clients, client)
        if place == len(self.clients) or self.clients[place] != client:
            raise BadInput(f"there is no device {client}; the clock has {len(self.clients)} devices")
        return place

    @cached_property
    def kinds(self) -> NDArray[np.int64]:
        """The number of each client's class, (clients,): clients in the order of a hash are dealt to the classes."""
        total, n = sum(kind.share for kind in self.time.classes), len(self.clients)
        ends = np.round(np.cumsum([kind.share / total for kind in self.time.classes]) * n)
        marks = np.array([fraction(self.seed, "class", client) for client in self.clients])
        rank = np.empty(n, np.int64)
        rank[np.argsort(marks, kind="stable")] = np.arange(n)
        return np.searchsorted(ends, rank, side="right").astype(np.int64)

    @cached_property
    def phases(self) -> Floats:
        """When each client's first period began, in seconds, (clients,)."""
        return np.array([self._phase_of(client) for client in self.clients], np.float64)

    def _phase_of(self, client: str) -> float:
        windows = self.time.availability
        if windows is None or windows.phase == "none":
            return 0.0
        return fraction(self.seed, "phase", client) * windows.period_s

    def _opens(self, phase: float | Floats, ready: Floats) -> Floats:
        """The first time from `ready` on that lies within a window, shapes alike."""
        windows = self.time.availability
        if windows is None:
            return ready
        inside = np.mod(ready - phase, windows.period_s)
        wait = (
            np.full_like(inside, windows.period_s + windows.windows[0][0]) - inside
        )  # the next period's first
        for begin, end in reversed(windows.windows):
            wait = np.where(inside < end, np.maximum(begin - inside, 0.0), wait)
        opened: Floats = ready + wait
        return opened


def _lognormal(deviation: float, rng: np.random.Generator) -> float:
    return float(np.exp(deviation * rng.standard_normal()))


def _exponential(part: float, rng: np.random.Generator) -> float:
    return 1 + part * (float(rng.standard_exponential()) - 1)


def _half_normal(part: float, rng: np.random.Generator) -> float:
    return 1 + part * (sqrt(pi / 2) * abs(float(rng.standard_normal())) - 1)


_JITTERS: Mapping[str, Callable[[float, np.random.Generator], float]] = {
    "lognormal": _lognormal,
    "exponential": _exponential,
    "half_normal": _half_normal,
}


def _transfer(size: int, mbps: float | None) -> float:
    """Seconds for `size` bytes."""
    return 0.0 if mbps is None else size * 8 / (mbps * _MILLION)


def _refuse_windows(windows: AvailabilityConfig) -> None:
    """Raise `BadConfig` unless windows are in order, none of them empty, all within the period."""
    edges = [edge for window in windows.windows for edge in window]
    ordered = all(a <= b for a, b in zip(edges, edges[1:], strict=False))
    if not edges or not ordered or edges[-1] > windows.period_s or any(a == b for a, b in windows.windows):
        raise BadConfig(
            "time.availability.windows",
            [list(window) for window in windows.windows],
            f"must be [from, to] pairs in ascending order within the period of {windows.period_s:g} s",
        )
