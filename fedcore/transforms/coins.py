"""Coins and dice that are exact: random bits and integers decide, never a rounded probability.

A floating-point probability is off by a rounding, and so is the privacy proved for it. Here each
probability is a ratio of integers or an exponential of one. Runs take as long as the coins fall:
this hides values, not the time it took to draw them.
"""

import os
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import BadInput

Bits = Callable[[int], bytes]  # how many bytes -> as many, each bit independent and fair
Integers: TypeAlias = NDArray[np.int64]
Whole: TypeAlias = NDArray[Any]  # int64, or Python's integers where 64 bits do not hold them

LARGEST = 2**62

system_bits: Bits = os.urandom


def seeded_bits(rng: np.random.Generator) -> Bits:
    """Bits of a generator: for simulations that must repeat, never for a release."""
    return rng.bytes


def below(limit: int, size: int, bits: Bits) -> Integers:
    """`size` integers, each uniform on 0 … `limit` − 1. Raises `BadInput` unless 1 ≤ `limit` ≤ 2^62."""
    if not 1 <= limit <= LARGEST:
        raise BadInput(f"a die has between 1 and 2^62 sides, got {limit}; choose a coarser grid")
    mask = np.uint64((1 << (limit - 1).bit_length()) - 1)

    def throw(count: int) -> Integers:
        words = (np.frombuffer(bits(8 * count), np.uint64) & mask).astype(np.int64)
        return words[words < limit]

    return gathered(size, throw)


def coins(heads: Whole, of: Whole, bits: Bits) -> NDArray[np.bool_]:
    """One coin for each pair, True with probability exactly ``heads / of``, which is at most 1.

    A uniform number's binary digits are compared with those of the ratio, 32 at a time, until they
    differ: that decides without ever knowing either to the end.
    """
    if of.dtype != object and of.size and of.max() >= 2**31:  # 32 digits more would overflow
        heads, of = heads.astype(object), of.astype(object)
    fell = np.zeros(len(of), np.bool_)
    undecided = np.arange(len(of))
    while undecided.size:
        heads = heads << 32
        digits = heads // of
        drawn = np.frombuffer(bits(4 * undecided.size), np.uint32).astype(np.int64)
        fell[undecided] = drawn < digits
        tied = (drawn == digits).astype(np.bool_)
        undecided, heads, of = undecided[tied], (heads - digits * of)[tied], of[tied]
    return fell


def exp_coins(above: Whole, under: Whole, bits: Bits) -> NDArray[np.bool_]:
    """One coin for each pair, True with probability exactly ``exp(−above / under)``.

    Canonne, Kamath, Steinke 2020, arXiv:2004.00010, algorithm 1.
    """
    whole = above // under
    fell = (run_length(len(under), bits) >= whole).astype(np.bool_)
    rest = (above - whole * under)[fell]
    fell[fell] = _exp_of_a_fraction(rest, under[fell], bits)
    return fell


def run_length(size: int, bits: Bits) -> Integers:
    """How often each of `size` coins of probability exp(−1) shows heads before its first tails."""
    length = np.zeros(size, np.int64)
    running = np.arange(size)
    while running.size:
        one = np.ones(running.size, np.int64)
        running = running[_exp_of_a_fraction(one, one, bits)]
        length[running] += 1
    return length


def gathered(size: int, propose: Callable[[int], Integers]) -> Integers:
    """The first `size` values that `propose` accepts; it gets how many to try, in order."""
    kept = [np.empty(0, np.int64)]
    while size > 0:
        accepted = propose(size + size // 2 + 8)[:size]
        kept.append(accepted)
        size -= len(accepted)
    return np.concatenate(kept)


def _exp_of_a_fraction(above: Whole, under: Whole, bits: Bits) -> NDArray[np.bool_]:
    """The same for ratios of at most 1: von Neumann's parity of a run of coins ``ratio / 1, 2, 3, …``."""
    fell = np.zeros(len(under), np.bool_)
    running = np.arange(len(under))
    turn = 1
    while running.size:
        went_on = coins(above, under * turn, bits)
        fell[running[~went_on]] = turn % 2 == 1
        running, above, under = running[went_on], above[went_on], under[went_on]
        turn += 1
    return fell
