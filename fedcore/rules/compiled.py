"""When the compiled kernels of `fedcore.rules.numba` are used: if numba is there and the work pays for its import.

Their twins in plain numpy give the same bytes (by test), so it never matters which one ran.
"""

from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

PAYS_FROM = 2**23  # bytes of a matrix: below, plain numpy is done before numba is imported
PAYS_AFTER = 2**27  # bytes of smaller ones in one process: a run so long earns the import back


class Small:
    """Matrices below `PAYS_FROM`: how many bytes of them this process has worked on. Threads may lose a few."""

    seen = 0


def numba_is_imported() -> None:
    """Say that something else has imported numba: from now on the kernels cost small matrices nothing."""
    Small.seen = PAYS_AFTER


def kernels(block: Any, of: Any = None) -> ModuleType | None:
    """The compiled kernels for `block`, a part `of` a matrix; None where another library does the work."""
    whole = block if of is None else of
    if not isinstance(block, np.ndarray) or not _in_order(block):
        return None
    if whole.nbytes < PAYS_FROM:
        Small.seen += block.nbytes
        if Small.seen < PAYS_AFTER:
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
