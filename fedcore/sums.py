"""Sums and products of float64 with what rounding lost of them, number by number."""

import numpy as np

from fedcore.types import Floats


def two_sum(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """a + b rounded, and what the rounding lost. Knuth 1969, theorem 4.2.2 B."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def two_product(a: Floats, b: Floats | float) -> tuple[Floats, Floats]:
    """a · b rounded, and what the rounding lost, underflow aside. Dekker 1971, section 5."""
    product = a * b
    (a_high, a_low), (b_high, b_low) = _split(a), _split(b)
    return product, a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low)


def _split(a: Floats | float) -> tuple[Floats, Floats]:
    """`a` as a sum of two numbers of 26 bits."""
    scaled = np.asarray(134_217_729.0 * a)  # 2^27 + 1
    high = scaled - (scaled - a)
    return high, a - high
