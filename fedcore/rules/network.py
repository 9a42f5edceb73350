"""Sorting networks: which pairs of rows to compare and swap, so that all columns sort side by side."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

Pairs = NDArray[np.int64]  # (comparators, 2): the smaller value goes to the first, the larger to the second


@cache
def comparators(rows: int, low: int = 0, high: int | None = None) -> Pairs:
    """Pairs that bring the `low`-th to `high`-th smallest of `rows` values to their places.

    Batcher's odd-even merge sort (Knuth 1998, 5.3.4, algorithm M), without the comparators on
    which no wanted place depends.
    """
    wanted = set(range(low, rows if high is None else high))
    kept = []
    for pair in reversed(_batcher(rows)):
        if wanted.intersection(pair):
            wanted.update(pair)
            kept.append(pair)
    return np.array(kept[::-1], dtype=np.int64).reshape(-1, 2)


def _batcher(rows: int) -> list[tuple[int, int]]:
    pairs = []
    step = 1 << max(0, rows - 1).bit_length() >> 1
    first = step
    while step:
        top, offset, length = first, 0, step
        while True:
            pairs += [(i, i + length) for i in range(rows - length) if i & step == offset]
            if top == step:
                break
            length, top, offset = top - step, top >> 1, step
        step >>= 1
    return pairs
