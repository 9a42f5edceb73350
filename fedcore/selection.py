"""Who is asked in a round: pure functions of the clients and the server's randomness.

Each says whether the privacy accountant may count its randomness as amplification.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fedcore.config import CohortConfig
from fedcore.errors import TooFewClients

Draw = Callable[[Sequence[str], np.random.Generator], tuple[str, ...]]


class Selection(NamedTuple):
    """A way to draw a cohort, and the sampling rate that the accountant may claim (None: none)."""

    draw: Draw
    amplifies_at: float | None


def everyone(config: CohortConfig) -> Selection:
    """Every client, every round: no randomness, no amplification."""
    return Selection(lambda clients, rng: tuple(clients), None)


def uniform(config: CohortConfig) -> Selection:
    """Exactly `size` clients without replacement; raises `TooFewClients`."""

    def draw(clients: Sequence[str], rng: np.random.Generator) -> tuple[str, ...]:
        if len(clients) < config.size:
            raise TooFewClients(config.size, len(clients), "cohort.size")
        chosen = rng.choice(len(clients), size=config.size, replace=False)
        return tuple(clients[i] for i in sorted(chosen))

    return Selection(draw, None)


def poisson(config: CohortConfig) -> Selection:
    """Each client independently with probability `rate`; the cohort may be empty.

    Amplification needs the cohort to stay secret. Mironov et al. 2019, arXiv:1908.10530.
    """

    def draw(clients: Sequence[str], rng: np.random.Generator) -> tuple[str, ...]:
        heads = rng.random(len(clients)) < config.rate
        return tuple(client for client, head in zip(clients, heads, strict=True) if head)

    return Selection(draw, config.rate)


SELECTIONS: Mapping[str, Callable[[CohortConfig], Selection]] = {
    "all": everyone,
    "uniform": uniform,
    "poisson": poisson,
}


def selection(config: CohortConfig) -> Selection:
    """The selection that `config` names."""
    return SELECTIONS[config.sampling](config)
