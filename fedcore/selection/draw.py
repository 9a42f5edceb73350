"""What a selection is made of: who there is, what a draw may look at, and what it says of itself."""

from collections.abc import Callable, Sequence
from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedcore.clock import Charges, Devices
from fedcore.config import CohortConfig
from fedcore.errors import TooFewClients
from fedcore.history import History
from fedcore.types import Floats

Places = NDArray[np.int64]  # numbers of clients in the sorted population


class Turn(NamedTuple):
    """What a draw may look at: the round's number, the virtual time, and what is remembered of clients."""

    round: int
    now: float = 0.0
    history: History = History()


Draw = Callable[[Sequence[str], np.random.Generator, Turn], tuple[str, ...]]  # clients, chance, turn


class Selection(NamedTuple):
    """A way to draw a cohort, and the sampling rate that the accountant may claim (None: none).

    `sized`: it asks for ``cohort.size`` clients. `remembers`: it needs the history of clients kept.
    `looks` names what it looks at of all clients, None: nothing; `told`: that is what they told of training.
    """

    draw: Draw
    amplifies_at: float | None
    sized: bool = False
    remembers: bool = False
    looks: str | None = None
    told: bool = False


class Population(NamedTuple):
    """Everyone who may be asked, sorted, with their training rows, and their devices on the virtual clock."""

    clients: tuple[str, ...] = ()
    rows: Floats = np.zeros(0)
    devices: Devices | None = None

    def places(self, clients: Sequence[str]) -> Places:
        """The numbers of `clients`, ascending, in whatever order they are named."""
        if len(clients) == len(self.clients):
            return np.arange(len(clients))
        return np.sort(np.searchsorted(np.array(self.clients), np.array(clients)))

    def names(self, places: Places) -> tuple[str, ...]:
        """The clients of these numbers, sorted."""
        return tuple(self.clients[place] for place in np.sort(places))

    def ready(self, places: Places, turn: Turn, needed: int, rng: np.random.Generator) -> Places:
        """Those of `places` whose devices may start now; if they are fewer than `needed`, the first so many that may."""
        if self.devices is None:
            return places
        n = len(self.clients)
        charges = Charges(turn.history.column("level", n, 1.0), turn.history.column("since", n, 0.0))
        starts = self.devices.starts(turn.now, charges)[places]
        now = places[starts <= turn.now]
        return now if len(now) >= needed else places[np.lexsort((rng.random(len(places)), starts))[:needed]]


def asked(cohort: CohortConfig, clients: int) -> int:
    """How many of so many clients are asked: `over_select` times `size`, rounded up. Raises `TooFewClients`."""
    if clients < cohort.size:
        raise TooFewClients(cohort.size, clients, "cohort.size")
    return min(clients, ceil(round(cohort.over_select * cohort.size, 6)))


def weighted(places: Places, weights: Floats, size: int, rng: np.random.Generator) -> Places:
    """`size` of `places` without replacement, the next one each time with a chance in proportion to its weight.

    The largest of ``u ** (1 / w)``; those without weight come last. Efraimidis & Spirakis 2006.
    """
    keys = np.log(1.0 - rng.random(len(places))) / np.maximum(weights, np.finfo(np.float64).tiny)
    return places[np.argsort(-keys, kind="stable")[:size]]
