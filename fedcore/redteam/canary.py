"""Canaries: clients of our own that send as much as one client may, each in a direction only the auditor knows.

A secret coin, tossed and committed to before the run, decides whether a canary takes part. All of them are
enrolled, so the population, the sampling rate and the fixed divisor are the same whatever the coins say; one
whose coin said no never answers. What is released is noise plus a sum over the clients that answered, divided by
a number that does not depend on it, and clients are drawn independently of each other: so a client that never
answers leaves exactly the release that its absence would, and in-or-out is the neighbouring relation
*one client added or removed* that the accountant speaks of.

Isotropic canaries: Andrew, Kairouz, Oh, Oprea, McMahan, Suriyakumar 2023, arXiv:2302.03098.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import BadInput
from fedcore.rng import generator
from fedcore.types import Fleet, Floats, Reply, Task, Updates, Vector

Sight = Literal["rounds", "final"]
LONG = 10.0  # clips: as long as a canary's update is, so that only the server's own clip makes it one
_LARGEST = 2**32  # bytes that the directions may take


@dataclass(frozen=True)
class Canaries:
    """`count` canaries, all that is secret about them made from `secret`.

    `sight` is what the auditor sees: the release of each round, or only the last model. An auditor
    who sees the rounds lets each canary change its sign from one round to the next: what two rounds have in
    common (the same noise, the drift of the model) falls out, and the canaries leave the model where it was.
    Not so against noise that is correlated over the rounds, which takes back most of itself: there they are
    `steady`, since the sum of what one client sent is what it hides.
    """

    count: int
    secret: str
    sight: Sight = "rounds"
    steady: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """What they are enrolled as, in the order of their numbers."""
        return tuple(f"canary-{number:05d}" for number in range(self.count))

    @property
    def included(self) -> NDArray[np.bool_]:
        """The coins (count,): who takes part."""
        return generator(0, "coins", self.secret).random(self.count) < 0.5

    @property
    def commitment(self) -> str:
        """SHA-256 of secret and coins: published before the run, opened by the secret after it."""
        coins = "".join("1" if coin else "0" for coin in self.included)
        return hashlib.sha256(f"{self.secret}:{self.sight}:{coins}".encode()).hexdigest()

    def directions(self, size: int) -> Updates:
        """A unit vector of each (count, size), independent and uniform. Raises `BadInput` beyond 4 GB."""
        if 4 * self.count * size > _LARGEST:
            raise BadInput(
                f"{self.count} canaries with {size} parameters need {4 * self.count * size / 1e9:.0f} GB; "
                "ask for fewer --canaries or a smaller model"
            )
        return _directions(self.count, size, self.secret)

    def signs(self, round_number: int) -> Floats:
        """±1 of each (count,): drawn anew every other round, and turned round in between."""
        if self.steady or self.sight == "final":
            return np.ones(self.count)
        drawn = generator(0, "signs", self.secret, round_number // 2).integers(0, 2, self.count)
        heads = (drawn == 1) == (round_number % 2 == 0)
        return np.where(heads, 1.0, -1.0)

    def seen(self, round_number: int, before: Vector, after: Vector) -> Floats:
        """What a round's release adds to each canary's score (count,): its move along what the canary sent.

        Summed over rounds it is the sum of the released updates along the directions; with one sign for
        all rounds, the last model less the first.
        """
        moved = after.astype(np.float64) - before.astype(np.float64)
        if not np.isfinite(moved).all():
            return np.zeros(self.count)
        return self.signs(round_number) * (self.directions(moved.size) @ moved.astype(np.float32))


@dataclass(frozen=True)
class CanaryFleet:
    """`fleet` and the canaries that take part, who answer a training task and nothing else.

    `clip` is the norm that updates are clipped to, unless the task names the round's own.
    """

    fleet: Fleet
    canaries: Canaries
    clip: float

    @property
    def clients(self) -> Sequence[str]:
        """Names of all clients, every canary among them."""
        return sorted((*self.fleet.clients, *self.canaries.names))

    def ask(self, task: Task, clients: Sequence[str]) -> Iterator[Reply]:
        """The replies of the fleet's clients, then those of the included canaries that were asked."""
        names = self.canaries.names
        strangers = frozenset(names)
        yield from self.fleet.ask(task, [client for client in clients if client not in strangers])
        if task.kind != "train":
            return
        assert task.model is not None, "a train task carries a model"
        asked, signs = frozenset(clients), self.canaries.signs(task.round)
        directions = self.canaries.directions(task.model.size)
        clip = self.clip if task.clip is None else task.clip
        for number in np.flatnonzero(self.canaries.included):
            if names[number] in asked:
                update = (LONG * clip * signs[number] * directions[number]).astype(np.float32)
                yield Reply(names[number], {}, update, None, task.round, task.model_sha256)


@lru_cache(maxsize=1)
def _directions(count: int, size: int, secret: str) -> Updates:
    drawn = np.empty((count, size), np.float32)
    for number in range(count):
        row = generator(0, "direction", secret, number).standard_normal(size)
        drawn[number] = row / np.sqrt(row @ row)
    drawn.setflags(write=False)
    return drawn
