"""SCAFFOLD's control variates: what keeps clients with different data from drifting apart.

A control variate estimates the gradient at one client. The server keeps all of them in the
round's state and derives each new one from the update itself, as it knows how many steps a client
took: nothing but the update leaves a client, and a client may be away for many rounds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedcore.config import LocalConfig
from fedcore.local.sgd import steps_taken, training
from fedcore.rules.mean import mean
from fedcore.types import Vector


@dataclass(frozen=True)
class Control:
    """Control variates of a population: `rows` and `weights` by client, the weights those of the mean."""

    local: LocalConfig
    rows: Mapping[str, int]
    weights: Mapping[str, float]

    def corrections(
        self, variates: Mapping[str, Vector], model: Vector, clients: Sequence[str]
    ) -> dict[str, Vector]:
        """c - c_i for each of `clients`: the mean variate of all clients minus the client's own, (d,) each.

        A client without one counts as zeros. Karimireddy et al. 2020, arXiv:1910.06378, algorithm 1.
        """
        if not variates:
            return {}
        nothing = np.zeros_like(model)
        own = [variates.get(client, nothing) for client in self.rows]
        center = mean(np.stack(own), np.array([self.weights[client] for client in self.rows]))
        return {client: center - variates.get(client, nothing) for client in clients}

    def after(
        self,
        variates: Mapping[str, Vector],
        corrections: Mapping[str, Vector],
        updates: Mapping[str, Vector],
        round_number: int,
    ) -> dict[str, Vector]:
        """The variates after a round: of clients with an update new ones, of the others those they had.

        c_i becomes c_i - c - update / (lr · `travel`): algorithm 1, line 12, option II, with the
        number of steps in the place it has without momentum.
        """
        lr = training(self.local, round_number).lr
        renewed = {
            client: -update / np.float32(lr * self.travel(client)) - corrections.get(client, np.float32(0))
            for client, update in updates.items()
        }
        return {**variates, **renewed}

    def travel(self, client: str) -> float:
        """How far a constant gradient of 1 takes a client at a learning rate of 1.

        Σ_j (1 - β^j) / (1 - β) over its steps j = 1 … K with momentum β; K itself without.

        >>> Control(LocalConfig(momentum=0.0, epochs=2, batch_size=10), {"a": 15}, {"a": 1.0}).travel("a")
        4.0
        """
        beta, steps = self.local.momentum, steps_taken(self.local, self.rows[client])
        return (steps - beta * (1 - beta**steps) / (1 - beta)) / (1 - beta)


def control(local: LocalConfig, rows: Mapping[str, int], weights: Mapping[str, float]) -> Control | None:
    """The control variates that ``local.algorithm`` asks for; None if it needs none."""
    return Control(local, rows, weights) if local.algorithm == "scaffold" else None
