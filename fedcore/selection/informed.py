"""Cohorts of those who have more rows, took part less often, or may start now; none claims amplification.

Where there is a virtual clock only those are asked who may start, unless they are too few.
"""

from collections.abc import Callable, Sequence

import numpy as np

from fedcore.config import Config
from fedcore.errors import PlanRefused
from fedcore.selection.draw import Draw, Places, Population, Selection, Turn, asked, weighted

Pick = Callable[[Places, int, np.random.Generator, Turn], Places]  # whom of, how many, chance, turn


def quality(config: Config, population: Population) -> Selection:
    """Clients with more training rows more often: each next one with a chance in proportion to its rows.

    The number of rows is what a site tells of the quality of its data; how its labels are spread does
    not leave it.
    """

    def pick(ready: Places, size: int, rng: np.random.Generator, turn: Turn) -> Places:
        return weighted(ready, population.rows[ready], size, rng)

    return Selection(drawn(config, population, pick), None, sized=True, looks="the rows of all clients")


def fair(config: Config, population: Population) -> Selection:
    """Those asked least often so far, ties by chance.

    Of clients that may always start, no two are ever asked a number of times that differs by more than one.
    """

    def pick(ready: Places, size: int, rng: np.random.Generator, turn: Turn) -> Places:
        times = turn.history.column("asked", len(population.clients), 0.0)[ready]
        return ready[np.lexsort((rng.random(len(ready)), times))[:size]]

    looks = "how often all clients took part"
    return Selection(drawn(config, population, pick), None, sized=True, remembers=True, looks=looks)


def available(config: Config, population: Population) -> Selection:
    """By chance among those whose devices may start now. Raises `PlanRefused` without a virtual clock."""
    if config.time.mode == "real":
        raise PlanRefused(
            "cohort.sampling available with time.mode real: only a virtual clock knows who may start; "
            "set time.mode: virtual and time.availability, or cohort.sampling: uniform"
        )

    def pick(ready: Places, size: int, rng: np.random.Generator, turn: Turn) -> Places:
        return rng.choice(ready, size=size, replace=False)

    return Selection(drawn(config, population, pick), None, sized=True, looks="which devices may start")


def drawn(config: Config, population: Population, pick: Pick) -> Draw:
    """The draw that lets `pick` choose among those who are ready."""

    def draw(clients: Sequence[str], rng: np.random.Generator, turn: Turn) -> tuple[str, ...]:
        size = asked(config.cohort, len(clients))
        ready = population.ready(population.places(clients), turn, size, rng)
        return population.names(pick(ready, size, rng, turn))

    return draw
