"""Noise on a grid of integers, drawn exactly, and the way from an update to that grid and back.

Noise in floating point leaks through its last bits: which numbers can come out depends on what was
hidden (Mironov 2012, doi:10.1145/2382196.2382264), and a floating-point sum moves by more than
the clip says (Casacuberta, Shoham, Vadhan, Wagaman 2022, arXiv:2207.10635). Here values, sums and
noise are integers, and only what is released becomes a float again.
"""

from fractions import Fraction
from math import isqrt

import numpy as np

from fedcore.errors import BadInput
from fedcore.transforms.coins import Bits, Integers, below, exp_coins, gathered, run_length
from fedcore.types import Floats

WIDEST = 2**40  # noise of more steps than this would come too near the end of 64 bits
FINEST = 2**53
SLACK = 1 + 2.0**-50  # more than what float64 rounds off in a division and a bound


def discrete_laplace(size: int, scale: Fraction, bits: Bits) -> Integers:
    """`size` integers, each x with probability proportional to ``exp(−|x| / scale)``, exactly.

    Raises `BadInput` for a scale that is not above zero, exceeds 2^41 or has a numerator beyond 2^53
    (no float has). Canonne, Kamath, Steinke 2020, arXiv:2004.00010, algorithm 2.
    """
    steps, parts = scale.as_integer_ratio()
    if not (0 < scale <= 2 * WIDEST and steps <= FINEST):
        raise BadInput(
            f"noise of scale {_told(scale)} steps does not fit 64-bit integers exactly; use a coarser grid"
        )

    def propose(count: int) -> Integers:
        offset = below(steps, count, bits)
        sides = np.full(count, steps)
        offset = offset[exp_coins(offset, sides, bits)]
        # Runs are short of 1,024 but for a chance of exp(−1024): the product stays under 2^63.
        far = (offset + steps * run_length(len(offset), bits)) // parts
        minus = below(2, len(far), bits) == 1
        signed: Integers = np.where(minus, -far, far)
        kept: Integers = signed[~(minus & (far == 0))]  # or zero would be drawn twice as often
        return kept

    return gathered(size, propose)


def discrete_gaussian(size: int, variance: Fraction, bits: Bits) -> Integers:
    """`size` integers, each x with probability proportional to ``exp(−x² / (2 · variance))``, exactly.

    `variance` is that of the continuous Gaussian; the noise's own is never larger, and practically
    the same from 1 on. Raises `BadInput` for one that is not above zero or whose root exceeds 2^40
    steps. Canonne, Kamath, Steinke 2020, arXiv:2004.00010, algorithm 3.
    """
    if not 0 < variance <= WIDEST**2:
        raise BadInput(
            f"noise of variance {_told(variance)} square steps is outside what 64-bit integers hold; "
            "use a grid on which its deviation is above 0 and at most 2^40 steps"
        )
    above, parts = variance.as_integer_ratio()
    side = isqrt(above // parts) + 1

    def propose(count: int) -> Integers:
        drawn = discrete_laplace(count, Fraction(side), bits)
        miss = np.abs(drawn).astype(object) * (side * parts) - above
        return drawn[exp_coins(miss * miss, np.full(count, 2 * above * parts * side * side, object), bits)]

    return gathered(size, propose)


def from_grid(steps: Integers, step: float) -> Floats:
    """What `steps` are in the update's unit, for the release."""
    return steps.astype(np.float64) * step


def _told(value: Fraction) -> str:
    return f"{float(value):g}" if abs(value) < 10**300 else "above 1e300"
