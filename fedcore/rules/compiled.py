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
    if not isinstance(block, np.ndarray) or block.strides[1] != block.itemsize or whole.nbytes < PAYS_FROM:
        return None
    return _numba()


@cache
def _numba() -> ModuleType | None:
    try:
        from fedcore.rules import numba
    except ImportError:
        return None
    return numba
