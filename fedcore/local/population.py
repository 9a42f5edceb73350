"""What a server knows of its clients before they answer: settings, rows, weights, and so their steps."""

from collections.abc import Mapping
from dataclasses import dataclass

from fedcore.config import LocalConfig
from fedcore.local.sgd import steps_taken
from fedcore.types import Vector


@dataclass(frozen=True)
class Population:
    """Clients that train by `local`: `rows` and `weights` by client, the weights those of the mean."""

    local: LocalConfig
    rows: Mapping[str, int]
    weights: Mapping[str, float]

    def travel(self, client: str) -> float:
        """How far a constant gradient of 1 takes a client at a learning rate of 1.

        Σ_j (1 - β^j) / (1 - β) over its steps j = 1 … K with momentum β; K itself without. It is
        ‖a_i‖₁ of Wang et al. 2020, arXiv:2007.07481, section 4.

        >>> Population(LocalConfig(momentum=0.0, epochs=2, batch_size=10), {"a": 15}, {"a": 1.0}).travel("a")
        4.0
        """
        beta, steps = self.local.momentum, steps_taken(self.local, self.rows[client])
        return (steps - beta * (1 - beta**steps) / (1 - beta)) / (1 - beta)


@dataclass(frozen=True)
class Seen:
    """What a round brought: its `number`, what clients were sent, the `updates` that were accepted as
    they came, and the `combined` one (d,).
    """

    number: int
    corrections: Mapping[str, Vector]
    updates: Mapping[str, Vector]
    combined: Vector
