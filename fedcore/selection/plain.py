"""Cohorts by chance or by turn alone: whom they ask depends on nothing that a client has or did."""

import hashlib
from collections.abc import Sequence

import numpy as np

from fedcore.config import Config
from fedcore.rng import generator
from fedcore.selection.draw import Population, Selection, Turn, asked


def everyone(config: Config, population: Population) -> Selection:
    """Every client, every round: no randomness, no amplification."""
    return Selection(lambda clients, rng, turn: tuple(clients), None)


def uniform(config: Config, population: Population) -> Selection:
    """Exactly `size` clients without replacement, or `over_select` times as many; raises `TooFewClients`."""

    def draw(clients: Sequence[str], rng: np.random.Generator, turn: Turn) -> tuple[str, ...]:
        chosen = rng.choice(len(clients), size=asked(config.cohort, len(clients)), replace=False)
        return tuple(clients[i] for i in sorted(chosen))

    return Selection(draw, None, sized=True)


def poisson(config: Config, population: Population) -> Selection:
    """Each client independently with probability `rate`; the cohort may be empty.

    Amplification needs the cohort to stay secret. Mironov et al. 2019, arXiv:1908.10530.
    """

    def draw(clients: Sequence[str], rng: np.random.Generator, turn: Turn) -> tuple[str, ...]:
        heads = rng.random(len(clients)) < config.cohort.rate
        return tuple(client for client, head in zip(clients, heads, strict=True) if head)

    return Selection(draw, config.cohort.rate)


def cyclic(config: Config, population: Population) -> Selection:
    """In round t the clients of group ``t mod privacy.bands``: nobody twice within so many rounds.

    A client's group is a hash of its name and the seed, whoever else is enrolled or left out, so
    groups are of about the same size, and one can be empty. Who is asked is no secret: no
    amplification. Choquette-Choo et al. 2023, arXiv:2306.08153, section 4.
    """

    def draw(clients: Sequence[str], rng: np.random.Generator, turn: Turn) -> tuple[str, ...]:
        group = turn.round % config.privacy.bands
        return tuple(c for c in clients if group_of(c, config.privacy.bands, config.seed) == group)

    return Selection(draw, None)


def turns(config: Config, population: Population) -> Selection:
    """One client a round, everyone in turn and in a new order each time around: cyclic weight transfer.

    The order is drawn from the seed, so who is asked is no secret: no amplification. Chang et al.
    2018, doi:10.1093/jamia/ocy017.
    """

    def draw(clients: Sequence[str], rng: np.random.Generator, turn: Turn) -> tuple[str, ...]:
        around, place = divmod(turn.round, len(clients))
        return (clients[generator(config.seed, "turns", around).permutation(len(clients))[place]],)

    return Selection(draw, None)


def group_of(client: str, groups: int, seed: int) -> int:
    """The group of `client`, from 0 to ``groups − 1``."""
    digest = hashlib.sha256(f"{seed}\x1f{client}".encode()).digest()
    return int.from_bytes(digest, "little") % groups
