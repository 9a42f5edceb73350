"""FedDyn: each client's loss is bent so that its optimum is the federation's. Acar et al. 2021, arXiv:2111.04263.

Client k minimises its loss − ⟨g_k, θ⟩ + α/2 · ‖θ − θ_start‖², where g_k is the gradient at the end
of its last training; the server keeps h, the mean of the g_k of all clients. Kept is what client k
adds to its gradients, −g_k, under its name, and h.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedcore.local.population import Population, Seen
from fedcore.types import Updates, Vector

SERVER = "/h"  # a client is a folder, so none has such a name


@dataclass(frozen=True)
class FedDyn:
    """FedDyn at the server, for α above zero: see `fedcore.local.control.Control`."""

    population: Population

    def corrections(
        self, kept: Mapping[str, Vector], model: Vector, clients: Sequence[str]
    ) -> dict[str, Vector]:
        """−g_k of those of `clients` that took part before. A client gets nothing made of another's update."""
        return {client: kept[client] for client in clients if client in kept}

    def scaled(self, updates: Updates, clients: Sequence[str]) -> Updates:
        """The rows as they came."""
        return updates

    def after(self, kept: Mapping[str, Vector], seen: Seen) -> tuple[Vector, dict[str, Vector]]:
        """The combined update − h / α, and the new g_k and h.

        g_k becomes g_k − α · update, by the condition of first order at the client's optimum; h
        becomes h − α · share · combined, where share is that of the round's clients in the weights of
        all: |P|/m of algorithm 1, so that h stays the mean over clients that are away too.
        """
        alpha, weights = np.float32(self.population.local.alpha), self.population.weights
        share = sum(weights[client] for client in sorted(seen.updates)) / sum(weights.values())
        nothing = np.zeros_like(seen.combined)
        h = kept.get(SERVER, nothing) - alpha * np.float32(share) * seen.combined
        memory = {
            client: kept.get(client, nothing) + alpha * update for client, update in seen.updates.items()
        }
        update = (seen.combined - h / alpha).astype(np.float32)
        return update, {**kept, **memory, SERVER: h}
