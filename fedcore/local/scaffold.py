"""SCAFFOLD's control variates: what keeps clients with different data from drifting apart.

A control variate estimates the gradient at one client. Kept is the variate of each client that
took part. Karimireddy et al. 2020, arXiv:1910.06378, algorithm 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedcore.local.population import Population, Seen
from fedcore.local.sgd import training
from fedcore.rules.mean import mean
from fedcore.types import Updates, Vector


@dataclass(frozen=True)
class Scaffold:
    """SCAFFOLD at the server: see `fedcore.local.control.Control`."""

    population: Population

    def corrections(
        self, kept: Mapping[str, Vector], model: Vector, clients: Sequence[str]
    ) -> dict[str, Vector]:
        """c - c_i: the mean variate of all clients, asked or not, minus the client's own.

        A client without one counts as zeros, so a round with clients S moves c by |S|/N of the mean
        change of theirs: line 17 of the algorithm.
        """
        if not kept:
            return {}
        nothing = np.zeros_like(model)
        own = [kept.get(client, nothing) for client in self.population.rows]
        weights = np.array([self.population.weights[client] for client in self.population.rows])
        center = mean(np.stack(own), weights)
        return {client: center - kept.get(client, nothing) for client in clients}

    def scaled(self, updates: Updates, clients: Sequence[str]) -> Updates:
        """The rows as they came."""
        return updates

    def after(self, kept: Mapping[str, Vector], seen: Seen) -> tuple[Vector, dict[str, Vector]]:
        """The combined update as it is; new variates of clients with an update, of the others those they had.

        c_i becomes c_i - c - update / (lr · travel): line 12, option II, with `travel` in the place
        that the number of steps has without momentum.
        """
        lr = training(self.population.local, seen.number).lr
        renewed = {
            client: -update / np.float32(lr * self.population.travel(client))
            - seen.corrections.get(client, np.float32(0))
            for client, update in seen.updates.items()
        }
        return seen.combined, {**kept, **renewed}
