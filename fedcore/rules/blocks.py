"""Column blocks: how a matrix of any size is worked on within a bound of memory, by every core.

A matrix is (clients, params) float32: numpy, memory-mapped, or a torch tensor on any device. It is
never copied whole and never changed. Blocks are cut at fixed places, whatever the number of
threads, so that results do not depend on the machine's cores.
"""

import mmap
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from io import FileIO
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import BadInput, TooFewClients
from fedcore.one_thread import one_thread
from fedcore.types import Floats

Matrix: TypeAlias = Any  # (rows, columns) float32 of numpy or of another array library
Result = TypeVar("Result")

BLOCK_BYTES = 16 * 2**20  # what one thread may hold of a matrix at a time, copies included
_MANY = 2**22  # numbers that are worth starting threads for
_ALIGNED = 64  # columns: blocks begin where the compiled kernels' groups begin


def checked(updates: Matrix, weights: Any = None) -> Matrix:
    """`updates` as a matrix of one row a client, not copied if it is one.

    Raises `TooFewClients` for no rows, `BadInput` for ragged rows, another dtype than float32, or
    weights that are not positive, finite and one a row.
    """
    if isinstance(updates, list | tuple):
        updates = stacked(updates)
    if updates.ndim != 2 or not updates.shape[1]:
        raise BadInput(
            f"updates must be a matrix with one row a client, got shape {tuple(updates.shape)}; stack the updates"
        )
    if not len(updates):
        raise TooFewClients(1, 0, "aggregation")
    if not str(updates.dtype).endswith("float32"):
        raise BadInput(f"updates must be float32, got {updates.dtype}; convert them at the client")
    if weights is not None:
        checked_weights(weights, len(updates))
    return updates


def checked_weights(weights: Any, rows: int) -> Floats:
    """`weights` as float64 (rows,). Raises `BadInput` unless all are positive and finite."""
    found = np.asarray(weights, dtype=np.float64)
    if found.shape != (rows,) or not np.isfinite(found).all() or found.min() <= 0:
        shown = np.array2string(found, threshold=8, separator=", ")
        raise BadInput(
            f"weights must be {rows} positive finite numbers, got {shown}; leave out who should not count"
        )
    return found


def namespace(matrix: Matrix) -> Any:
    """The module with the functions for `matrix`: numpy, or the library its type comes from."""
    if hasattr(matrix, "__array_namespace__"):
        return matrix.__array_namespace__()
    return sys.modules[type(matrix).__module__.partition(".")[0]]


def host(array: Any) -> NDArray[Any]:
    """`array` as numpy, copied only from another device."""
    return np.asarray(array.cpu() if hasattr(array, "cpu") else array)


def places(matrix: Matrix, indices: NDArray[np.intp]) -> Any:
    """`indices` as every library's arrays take them."""
    return indices if isinstance(matrix, np.ndarray) else indices.tolist()


def threads(matrix: Matrix) -> int:
    """How many threads work on `matrix`; other libraries than numpy bring their own."""
    return len(os.sched_getaffinity(0)) if isinstance(matrix, np.ndarray) else 1


def over_columns(
    matrix: Matrix,
    work: Callable[[Matrix, int, int], Result],
    bytes_per_column: int,
    gather: Callable[[Result], object] | None = None,
) -> None:
    """``work(matrix[:, start:stop], start, stop)`` for blocks of columns, and `gather` what it gives, in order.

    A block takes at most `BLOCK_BYTES`. Blocks run in threads where there is enough to work on, BLAS within each in
    one: work that releases the lock uses every core.
    """
    width = max(_ALIGNED, BLOCK_BYTES // bytes_per_column // _ALIGNED * _ALIGNED)
    starts = range(0, matrix.shape[1], width)

    def block(start: int) -> Result:
        stop = min(start + width, matrix.shape[1])
        return work(columns(matrix, start, stop), start, stop)

    many = len(matrix) * matrix.shape[1] >= _MANY
    for result in _in_threads(block, starts, min(threads(matrix), len(starts)) if many else 1):
        if gather:
            gather(result)


def columns(matrix: Matrix, start: int, stop: int) -> Matrix:
    """``matrix[:, start:stop]``, a view; of a mapped file a copy that was read.

    Pages of a mapping count as resident memory, and the kernel maps up to 2 MiB for each touch.
    """
    place = _in_file(matrix)
    if place is None:
        return matrix[:, start:stop]
    path, offset = place
    part = np.empty((len(matrix), stop - start), np.float32)
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123  (a memmap's filename may be no Path)
        for i, row in enumerate(part):
            file.seek(offset + i * matrix.strides[0] + start * matrix.itemsize)
            _fill(file, row.view(np.uint8).data)
    return part


def empty(matrix: Matrix, *shape: int) -> Any:
    """An array of the library, dtype and device of `matrix`, to be filled."""
    return namespace(matrix).empty(shape, dtype=matrix.dtype, device=getattr(matrix, "device", None))


def _in_file(matrix: Matrix) -> tuple[str, int] | None:
    """The file that `matrix` is mapped from and where its first value lies in it; None if it is in memory."""
    if not isinstance(matrix, np.memmap) or matrix.mode == "c" or matrix.strides[1] != matrix.itemsize:
        return None
    whole: Any = matrix
    while isinstance(whole.base, np.memmap):
        whole = whole.base
    if whole.filename is None or not isinstance(whole.base, mmap.mmap):
        return None
    return str(whole.filename), whole.offset + matrix.ctypes.data - whole.ctypes.data


def _fill(file: FileIO, space: memoryview) -> None:
    while space:
        read = file.readinto(space)
        if not read:
            raise BadInput(f"{file.name} ends before the matrix mapped from it does; map it again")
        space = space[read:]


def _in_threads(block: Callable[[int], Result], starts: range, workers: int) -> Iterator[Result]:
    """``block(start)`` for all, in order; no more are under way than threads and as many again."""
    if workers == 1:
        with one_thread():
            yield from map(block, starts)
        return
    with one_thread(), ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Result]] = deque()
        for start in starts:
            waiting.append(pool.submit(block, start))
            if len(waiting) == 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def over_rows(
    look: Callable[[NDArray[np.float32]], Result], rows: Sequence[NDArray[np.float32]]
) -> list[Result]:
    """``look(row)`` for all, in order: in threads where there is enough to look at, BLAS within each in one."""
    many = sum(row.size for row in rows) >= _MANY
    workers = min(threads(rows[0]), len(rows)) if many else 1
    return list(_in_threads(lambda i: look(rows[i]), range(len(rows)), workers))


def by_content(updates: Matrix) -> NDArray[np.intp]:
    """The order of rows sorted by their values from the first column on: the same for any arrival order.

    Equal rows stay as they are: whichever comes first, the result is the same.
    """
    rows, count = updates.shape
    rank = np.zeros(rows, dtype=np.int64)
    start, width = 0, 8
    while start < count and (tied := np.flatnonzero(np.bincount(rank)[rank] > 1)).size:
        # Equal rows are read to their end, in ever wider pieces; all others part at once.
        piece = host(columns(updates, start, min(start + width, count))[places(updates, tied)])
        piece = piece + np.float32(0)  # -0 is 0
        if (piece != piece[0]).any():
            rank = _refined(rank, tied, piece)
        start, width = start + width, min(width * 8, 2**16)
    return np.argsort(rank, kind="stable")


def _refined(rank: NDArray[np.int64], tied: NDArray[np.intp], piece: NDArray[Any]) -> NDArray[np.int64]:
    """`rank` with ties told apart by the bytes of `piece`, dense again."""
    keys = [row.tobytes() for row in piece]
    place = {key: number for number, key in enumerate(sorted(set(keys)))}
    finer = rank * (len(place) + 1)
    finer[tied] += [place[key] for key in keys]
    _, dense = np.unique(finer, return_inverse=True)
    return dense.astype(np.int64)


def stacked(updates: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Updates (d,) as the rows of a matrix (n, d): not copied if they are those of one in memory, in its order.

    Raises `TooFewClients` for none, `BadInput` for ragged ones.
    """
    if not updates:
        raise TooFewClients(1, 0, "aggregation")
    shapes = sorted({np.shape(update) for update in updates})
    if len(shapes) > 1:
        raise BadInput(
            f"updates must have one shape, got {shapes[0]} and {shapes[1]}; check the model's layout"
        )
    whole = getattr(updates[0], "base", None)
    if type(whole) is np.ndarray and whole.shape == (len(updates), *shapes[0]) and whole.flags.c_contiguous:
        first, step = whole.ctypes.data, whole.strides[0]
        if all(update.ctypes.data == first + i * step for i, update in enumerate(updates)):
            return whole
    return np.stack(updates)
