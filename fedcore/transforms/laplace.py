"""The L1 norm's pair: a clip to it, and Laplace noise, in float64 from the system's source.

The same noise on a grid, free of rounding, is `fedcore.transforms.discrete.discrete_laplace`.
"""

from collections.abc import Callable
from math import fsum
from typing import Any

import numpy as np

from fedcore.errors import BadConfig, BadInput
from fedcore.transforms.coins import Bits, system_bits
from fedcore.types import Floats, Transform, Vector

Laplace = Callable[[int], Floats]  # size -> Laplace numbers of scale 1


def norm_l1(update: Vector) -> float:
    """L1 norm, its sum rounded once."""
    return fsum(np.abs(update.astype(np.float64)).tolist())


def clip_l1(limit: float) -> Transform:
    """Scale an update down to L1 norm `limit`; leave shorter ones alone, zero included.

    The L1 norm of the float32 result never exceeds `limit`, and so neither does the L2 norm, which
    `bound` maps. Raises `BadInput` for an update that is not finite: it has no norm.
    """
    if not (np.isfinite(limit) and limit > 0):
        raise BadConfig("privacy.clip", limit, "must be finite and above zero")

    def apply(update: Vector, state: Any, rng: np.random.Generator) -> tuple[Vector, Any]:
        if not np.isfinite(update).all():
            raise BadInput("cannot clip an update that is not finite; lower local.lr")
        length, shrink = norm_l1(update), 1.0
        while length * shrink > limit or norm_l1(clipped := update * np.float32(shrink)) > limit:
            shrink = min(shrink * (1 - 2**-22), limit / length)
        return clipped, state

    return Transform(init=lambda: (), apply=apply, bound=lambda incoming: min(incoming, limit))


def system_laplace(size: int, bits: Bits = system_bits) -> Floats:
    """`size` independent Laplace numbers of scale 1 (variance 2) from the system's cryptographic source.

    A fair sign and minus the logarithm of a 53-bit uniform number in (0, 1].
    """
    words = np.frombuffer(bits(8 * size), dtype=np.uint64)
    uniform = ((words >> np.uint64(11)).astype(np.float64) + 1.0) * 2.0**-53
    return np.where(words & np.uint64(1), np.log(uniform), -np.log(uniform))


def seeded_laplace(rng: np.random.Generator) -> Laplace:
    """The same from a generator: for simulations that must repeat, never for a release."""
    return lambda size: system_laplace(size, rng.bytes)


def add_laplace(summed: Floats, scale: float, laplace: Laplace) -> Floats:
    """`summed` (d,) plus Laplace noise of scale `scale` (deviation √2 · `scale`) per coordinate.

    `scale` is the noise multiplier times the L1 clipping norm. Dwork, McSherry, Nissim, Smith
    2006, doi:10.1007/11681878_14, example 1.
    """
    if not (np.isfinite(scale) and scale > 0):
        raise BadConfig("privacy.noise_multiplier", scale, "must be finite and above zero")
    noisy: Floats = summed + scale * laplace(summed.size)
    return noisy
