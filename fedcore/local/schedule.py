"""How a client's learning rate changes from round to round: a table of shapes, and a warm-up before any of them."""

from collections.abc import Callable, Mapping
from math import cos, pi

from fedcore.config import LocalConfig

# How much of the rate is left so many rounds after the warm-up.
SCHEDULES: Mapping[str, Callable[[LocalConfig, int], float]] = {
    "constant": lambda local, after: 1.0,
    "exponential": lambda local, after: local.decay**after,
    "step": lambda local, after: local.decay ** (after // local.period),
    "cosine": lambda local, after: (1 + cos(pi * min(1.0, after / local.period))) / 2,
}


def learning_rate(local: LocalConfig, round_number: int) -> float:
    """The rate of a round: it rises evenly over ``local.warmup`` rounds, then follows ``local.schedule``.

    >>> [learning_rate(LocalConfig(lr=1.0, decay=0.5, warmup=1), r) for r in range(4)]
    [0.5, 1.0, 0.5, 0.25]
    """
    rise = min(1.0, (round_number + 1) / (local.warmup + 1))
    fall = SCHEDULES[local.schedule](local, max(0, round_number - local.warmup))
    return local.lr * rise * fall
