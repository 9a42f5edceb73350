"""What a trial changes of the plain training: `plain`, `top_k`, `dp`.

A variant is what the server does differently and what an honest update goes through. Forged rows
do not go through it: nobody can make a liar compress or add noise.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import sqrt
from typing import Any, NamedTuple

import numpy as np

from fedcore.config import Config
from fedcore.errors import UnknownName
from fedcore.redteam.fleet import TransformedFleet
from fedcore.transforms.chain import chain, identity
from fedcore.transforms.clip import clip
from fedcore.transforms.noise import add_gaussian
from fedcore.transforms.top_k import top_k
from fedcore.types import Fleet, Transform, Vector

KEPT = 0.1  # share of coordinates that top_k keeps
CLIP, NOISE = (
    1.0,
    0.2,
)  # dp: the clip, and the noise on the sum over it; few clients bear no more and still learn


class Variant(NamedTuple):
    """The server's settings, and the transform of an honest update, both made from config and clients."""

    server: Callable[[Config], Config]
    client: Callable[[Config, int], Transform]


def noise(deviation: float) -> Transform:
    """Gaussian noise on each coordinate of one update: what no single row may be recognised by."""

    def apply(update: Vector, state: Any, rng: np.random.Generator) -> tuple[Vector, Any]:
        return add_gaussian(update.astype(np.float64), deviation, rng.standard_normal).astype(
            np.float32
        ), state

    return Transform(init=lambda: (), apply=apply, bound=lambda incoming: float("inf"))


def private(config: Config) -> Config:
    """Central noise, seeded, where the rule is a plain sum; no claim at all where it is not."""
    if config.combine.rule != "mean" or config.combine.mixers:
        return config
    noise = {"mode": "central", "noise": "seeded", "noise_multiplier": NOISE, "max_noise_ratio": 1e6}
    privacy = replace(config.privacy, clip=CLIP, **noise)  # type: ignore[arg-type]
    return replace(config, privacy=privacy, combine=replace(config.combine, weights="equal"))


def clipped_and_noisy(config: Config, clients: int) -> Transform:
    """A client's part under ``dp``: it clips; where the server adds no noise, its share of the same noise too.

    Shares add up to the noise of the sum: its variance over `clients`. The plan refuses central
    noise with a robust rule, and no ε is claimed for this.
    """
    if config.privacy.mode == "central":
        return clip(CLIP)
    return chain(clip(CLIP), noise(NOISE * CLIP / sqrt(clients)))


VARIANTS: Mapping[str, Variant] = {
    "plain": Variant(lambda config: config, lambda config, clients: identity),
    "top_k": Variant(lambda config: config, lambda config, clients: top_k(KEPT)),
    "dp": Variant(private, clipped_and_noisy),
}


def variant(name: str) -> Variant:
    """The variant of that name. Raises `UnknownName`."""
    if name not in VARIANTS:
        raise UnknownName("variant", name, VARIANTS)
    return VARIANTS[name]


def through(name: str, config: Config, clients: int) -> Callable[[Fleet], Fleet]:
    """What wraps a fleet so that its updates go through the variant; `config` is the server's."""

    def wrap(fleet: Fleet) -> Fleet:
        transform = variant(name).client(config, clients)
        return fleet if transform is identity else TransformedFleet(fleet, transform, config.seed)

    return wrap
