"""Gaussian noise for privacy, in float64, from the operating system's random source."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from fedcore.errors import BadConfig
from fedcore.types import Floats, Transform, Vector

Normal = Callable[[int], Floats]  # size -> standard normal numbers


def system_normal(size: int) -> Floats:
    """`size` independent standard normal numbers from the system's cryptographic source.

    Box and Muller 1958 on 53-bit uniforms in (0, 1].
    """
    pairs = (size + 1) // 2
    bits = np.frombuffer(os.urandom(16 * pairs), dtype=np.uint64) >> np.uint64(11)
    uniform = (bits.astype(np.float64) + 1.0) * 2.0**-53
    radius, angle = np.sqrt(-2.0 * np.log(uniform[:pairs])), 2.0 * np.pi * uniform[pairs:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:size]


def seeded_normal(rng: np.random.Generator) -> Normal:
    """The same from a generator: for simulations that must repeat, never for a release."""
    return rng.standard_normal


def add_gaussian(summed: Floats, deviation: float, normal: Normal) -> Floats:
    """`summed` (d,) plus noise of standard deviation `deviation` per coordinate.

    `deviation` is the noise multiplier times the clipping norm, because the noise belongs to
    the *sum* of clipped updates. Dwork and Roth 2014, theorem A.1.
    """
    if not (np.isfinite(deviation) and deviation > 0):
        raise BadConfig("privacy.noise_multiplier", deviation, "must be finite and above zero")
    noisy: Floats = summed + deviation * normal(summed.size)
    return noisy


def adding(add: Callable[[Floats], Floats]) -> Transform:
    """What a client does under local privacy: `add` puts noise on its update (d,).

    Drawn and added in float64, then rounded to float32. The result is a release: its norm has no
    bound and needs none.
    """

    def apply(update: Vector, state: Any, rng: np.random.Generator) -> tuple[Vector, Any]:
        return add(update.astype(np.float64)).astype(np.float32), state

    return Transform(init=lambda: (), apply=apply, bound=lambda incoming: float("inf"))
