"""What a server adds to plain averaging for a local algorithm: the protocol, and the table of who keeps it.

A `Control` knows how many steps each client takes, so it derives all it needs from the updates:
nothing but the update leaves a client, and a client may be away for many rounds. What passes from
round to round is a mapping of names to vectors, kept in the round's state.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from fedcore.config import LocalConfig
from fedcore.local.feddyn import FedDyn
from fedcore.local.fednova import FedNova
from fedcore.local.population import Population, Seen
from fedcore.local.scaffold import Scaffold
from fedcore.types import Updates, Vector

Kept = Mapping[str, Vector]


class Control(Protocol):
    """The server's part of a local algorithm: three pure functions, called in this order in each round."""

    def corrections(self, kept: Kept, model: Vector, clients: Sequence[str]) -> dict[str, Vector]:
        """What each of `clients` adds to its gradients, (d,) each; empty for nothing."""
        ...

    def scaled(self, updates: Updates, clients: Sequence[str]) -> Updates:
        """The rows (n, d) of `clients` as they are combined."""
        ...

    def after(self, kept: Kept, seen: Seen) -> tuple[Vector, Kept]:
        """The combined update (d,) as the server optimizer gets it, and what is kept for the next round."""
        ...


@dataclass(frozen=True)
class Plain:
    """Nothing added: FedAvg and FedProx."""

    def corrections(self, kept: Kept, model: Vector, clients: Sequence[str]) -> dict[str, Vector]:
        """None."""
        return {}

    def scaled(self, updates: Updates, clients: Sequence[str]) -> Updates:
        """The rows as they came."""
        return updates

    def after(self, kept: Kept, seen: Seen) -> tuple[Vector, Kept]:
        """The combined update as it is; nothing is kept."""
        return seen.combined, {}


CONTROLS: Mapping[str, Callable[[Population], Control]] = {
    "scaffold": Scaffold,
    "fednova": FedNova,
    "feddyn": lambda population: FedDyn(population) if population.local.alpha else Plain(),
}


def control(local: LocalConfig, rows: Mapping[str, int], weights: Mapping[str, float]) -> Control:
    """The server's part of ``local.algorithm`` over clients with `rows` training rows; `weights` are the mean's."""
    found = CONTROLS.get(local.algorithm)
    return found(Population(local, rows, weights)) if found else Plain()
