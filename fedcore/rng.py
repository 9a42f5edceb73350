"""Randomness is an argument: one generator per (seed, purpose, run facts), never a global one.

Names are hashed, so a client's stream does not depend on how many others there are or in which
order they run. Noise for privacy does not come from here, except in a simulation.
"""

import hashlib
import secrets

import numpy as np


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A generator that depends on nothing but `seed` and `names`, the same on every machine.

    >>> generator(7, "cohort", 3).integers(10) == generator(7, "cohort", 3).integers(10)
    np.True_
    """
    return np.random.Generator(np.random.PCG64(int.from_bytes(_digest(seed, names), "little")))


def fraction(seed: int, *names: str | int) -> float:
    """One uniform number from 0 up to 1 that depends on nothing but `seed` and `names`; a generator costs 20 times that.

    >>> fraction(7, "phase", "a") == fraction(7, "phase", "a") != fraction(7, "phase", "b")
    True
    """
    return int.from_bytes(_digest(seed, names)[:8], "little") / 2**64


def _digest(seed: int, names: tuple[str | int, ...]) -> bytes:
    words = "\x1f".join([str(seed), *(f"{type(name).__name__}:{name}" for name in names)])
    return hashlib.sha256(words.encode()).digest()


def secret_generator() -> np.random.Generator:
    """A generator that nobody can repeat, its 256-bit seed from the operating system's source.

    For draws that must stay secret and are never shown, such as a private cohort. Noise is drawn
    from the system's source itself.
    """
    return np.random.Generator(np.random.PCG64(secrets.randbits(256)))
