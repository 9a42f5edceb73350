"""A distribution of privacy losses on a grid: run many times, run beside another, and its ε.

The same numbers as `dp_accounting`'s distributions give, in milliseconds where those take a tenth of
a second: bounds on the tail are prepared once, not for each number of rounds.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcore.types import Floats

_TAIL = 1e-15  # probability that a composition may push outside its window; it counts as infinite loss
_ORDERS = 2.0 ** np.arange(0, 12, 0.5)  # of the moments that bound the tails, over the length of the grid


@dataclass(frozen=True)
class Losses:
    """Probability ``probs[i]`` of the loss ``(lowest + i) * interval``, `beyond` of an infinite one."""

    interval: float
    lowest: int
    probs: Floats
    beyond: float


@dataclass(frozen=True)
class Moments:
    """Logarithms of E[exp(order·i)] of a `Losses`, by order: what bounds the tails of its compositions."""

    orders: Floats
    logs: Floats


def moments(one: Losses) -> Moments:
    """The moments of `one` at positive and negative orders."""
    steps = np.flatnonzero(one.probs)
    logs = np.log(one.probs[steps])
    orders = np.concatenate([-_ORDERS, _ORDERS]) / len(one.probs)
    return Moments(orders, np.array([_summed(order * steps + logs) for order in orders]))


def _summed(logs: Floats) -> float:
    """The logarithm of the sum: the largest is taken out, so that no sum vanishes."""
    top = logs.max()
    return float(top + np.log(np.exp(logs - top).sum()))


def repeated(one: Losses, known: Moments, times: int) -> Losses:
    """`one` composed with itself `times` times; `known` are its moments.

    Probability outside the window that Chernoff's bound gives is at most 1e-15 and counted as
    infinite loss. Koskela et al. 2020, arXiv:1906.03049.
    """
    if times == 1:
        return one
    below, above = known.orders < 0, known.orders > 0
    bounds = (times * known.logs + math.log(2 / _TAIL)) / known.orders
    first = max(0, math.floor(bounds[below].max()))
    last = min((len(one.probs) - 1) * times, math.ceil(bounds[above].min()))
    size = _fast(max(last - first + 1, len(one.probs)))
    turned = np.fft.irfft(_power(np.fft.rfft(one.probs, size), times), size)
    probs = np.maximum(0.0, np.roll(turned, -(first % size))[: last - first + 1])
    beyond = _TAIL - math.expm1(times * math.log1p(-one.beyond))
    return Losses(one.interval, one.lowest * times + first, probs, beyond)


def beside(one: Losses, other: Losses) -> Losses:
    """Both releases together; their intervals must be the same."""
    length = len(one.probs) + len(other.probs) - 1
    size = _fast(length)
    probs = np.fft.irfft(np.fft.rfft(one.probs, size) * np.fft.rfft(other.probs, size), size)[:length]
    beyond = one.beyond + other.beyond - one.beyond * other.beyond
    return Losses(one.interval, one.lowest + other.lowest, np.maximum(0.0, probs), beyond)


def epsilon_at(losses: Losses, delta: float) -> float:
    """The smallest ε ≥ 0 at which the hockey-stick divergence is at most `delta`; ∞ where there is none.

    Above ε only larger losses count: δ(ε) = U - e^ε·L with U their probability and L that under the
    other distribution, so that ε = log((U - δ)/L) between the two losses where that lies.
    """
    if losses.beyond > delta:
        return math.inf
    start = max(0, 1 - losses.lowest)  # a loss of 0 or less never counts
    grid = (np.arange(start, len(losses.probs)) + losses.lowest) * losses.interval
    probs = losses.probs[start:]
    upper = losses.beyond + np.cumsum(probs[::-1])[::-1]
    lower = np.cumsum((probs * np.exp(-grid))[::-1])[::-1]
    over = np.flatnonzero(upper > delta)
    if len(over) == 0:
        return 0.0
    with np.errstate(divide="ignore"):
        found = np.log(upper[over] - delta) - np.log(lower[over])
    before = np.concatenate([[0.0], grid[:-1]])[
        over
    ]  # the loss below each: ε lies above it or is further down
    reached = np.flatnonzero(found >= before)
    return float(max(0.0, found[reached[-1]])) if len(reached) else 0.0


def _power(transform: NDArray[np.complex128], times: int) -> NDArray[np.complex128]:
    """`transform` to the power `times` by squaring, a few times faster than numpy's complex power.

    The relative error grows with `times` as that of any power does: 1e-12 after 10,000.
    """
    power = transform.copy()
    for bit in bin(times)[3:]:
        np.multiply(power, power, out=power)
        if bit == "1":
            np.multiply(power, transform, out=power)
    return power


def _fast(length: int) -> int:
    """The next length that a Fourier transform is fast at: 2^k or 3·2^k."""
    whole: int = 1 << (length - 1).bit_length()
    return 3 * whole // 4 if 3 * whole // 4 >= length else whole
