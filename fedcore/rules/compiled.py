"""When the compiled kernels of `fedcore.rules.numba` are used: if numba is there and the work pays for it.

Their twins in plain numpy give the same bytes (by test), so it never matters which one ran.
"""

from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

PAYS_FROM = 2**23  # bytes of a matrix: below, plain numpy is done before numba is imported


def kernels(block: Any, of: Any = None) -> ModuleType | None:
    """The compiled kernels for `block`, a part `of` a matrix; None where another library does the work."""
    whole = block if of is None else of
    if not isinstance(block, np.ndarray) or whole.nbytes < PAYS_FROM or not _in_order(block):
        return None
    return _numba()


def _in_order(block: Any) -> bool:
    """Whether rows are contiguous and lie one after another in memory."""
    between, within = block.strides
    return bool(within == block.itemsize and between >= block.shape[1] * within and between % within == 0)


@cache
def _numba() -> ModuleType | None:
    try:
        from fedcore.rules import numba
    except ImportError:
        return None
    return numba
