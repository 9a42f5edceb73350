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
    words = "\x1f".join([str(seed), *(f"{type(name).__name__}:{name}" for name in names)])
    digest = hashlib.sha256(words.encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


def secret_generator() -> np.random.Generator:
    """A generator that nobody can repeat, its 256-bit seed from the operating system's source.

    For draws that must stay secret and are never shown, such as a private cohort. Noise is drawn
    from the system's source itself.
    """
    return np.random.Generator(np.random.PCG64(secrets.randbits(256)))
