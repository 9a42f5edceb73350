"""FedNova: clients that take more steps than others do not pull the model to their own optimum.

Plain averaging of unequal steps minimises another objective than the one that was asked for: who
steps more counts more. Wang et al. 2020, arXiv:2007.07481, algorithm 1 and equation 7.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from fedcore.local.population import Population, Seen
from fedcore.types import Updates, Vector


@dataclass(frozen=True)
class FedNova:
    """FedNova at the server: see `fedcore.local.control.Control`."""

    population: Population

    def corrections(
        self, kept: Mapping[str, Vector], model: Vector, clients: Sequence[str]
    ) -> dict[str, Vector]:
        """None: the client is FedAvg's."""
        return {}

    def scaled(self, updates: Updates, clients: Sequence[str]) -> Updates:
        """Each row times τ_eff / ‖a_i‖₁: as if its client had gone as far as the average client does.

        ‖a_i‖₁ is `Population.travel`, τ_eff its mean over `clients` by their weights. Clients that
        go equally far keep their rows to the byte: the factors are exact fractions, rounded once.
        """
        travels = [Fraction(self.population.travel(client)) for client in clients]
        weights = [Fraction(self.population.weights[client]) for client in clients]
        weighed = sum((w * t for w, t in zip(weights, travels, strict=True)), Fraction(0))
        effective = weighed / sum(weights)
        factors = np.array([float(effective / travel) for travel in travels], np.float32)
        return updates * factors[:, None]

    def after(self, kept: Mapping[str, Vector], seen: Seen) -> tuple[Vector, dict[str, Vector]]:
        """The combined update as it is; nothing is kept."""
        return seen.combined, {}
