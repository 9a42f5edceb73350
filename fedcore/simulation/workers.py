"""Clients in worker processes of this machine: the same bytes as `SerialFleet`, whatever the count.

Encoded rows, the model and the updates lie in memory that all processes share: nothing is pickled or copied for each
client. A worker that was killed is replaced and its clients are asked again. A worker ends by itself when the process
that started it is gone, however it went.
"""

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedcore.config import Config
from fedcore.errors import ServiceError
from fedcore.one_thread import one_thread
from fedcore.simulation.desk import Desk
from fedcore.simulation.parcels import Parcel, Sender, portions, taken
from fedcore.simulation.shared import SharedFolder, SharedRows
from fedcore.types import Reply, Task, TaskKind

_DEATHS = 3  # of workers over one question; a client that kills each worker it meets ends the run
_desk: Desk | None = None  # of this worker process, set once when it starts


class WorkerFleet:
    """Clients over the folders of `sites` in `workers` processes: see `fedcore.types.Fleet`.

    What a client keeps for itself lies in `keep`: the next worker that answers for it goes on from there.
    """

    def __init__(
        self, sites: Path, clients: tuple[str, ...], config: Config, workers: int, keep: Path | None = None
    ) -> None:
        self.clients: Sequence[str] = tuple(sorted(clients))
        self._given, self._workers = (sites, config, keep), workers
        self._shared: SharedFolder | None = None
        self._pool: ProcessPoolExecutor | None = None
        self._told = False

    def ask(self, task: Task, clients: Sequence[str]) -> Iterator[Reply]:
        """Replies as they are ready. Raises `ServiceError` where workers are killed again and again."""
        with self._packed(task, len(clients)) as (parcel, updates):
            waiting = dict(enumerate(clients))
            for _ in range(_DEATHS):
                try:
                    for row, answer in self._answers(parcel, waiting, task.kind):
                        del waiting[row]
                        yield taken(updates, row, answer)
                    return
                except BrokenProcessPool:
                    self._mourn(len(waiting))
        left = ", ".join(list(waiting.values())[:3])
        raise ServiceError(
            f"{_DEATHS} times a worker process was killed in one round (out of memory?), waiting for {left}; use fewer "
            "run.workers or a smaller run.memory_mb, and run again to go on from here; a script of your own must start "
            "the run below if __name__ == '__main__'"
        )

    def close(self) -> None:
        """End the workers and give shared memory back."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        if self._shared is not None:
            self._shared.close()
        self._pool = self._shared = None

    @contextmanager
    def _packed(self, task: Task, clients: int) -> Iterator[tuple[Parcel, NDArray[np.float32] | None]]:
        if self._shared is None:
            self._shared = SharedFolder()
            self._sender = Sender(self._shared.path)
        parcel, updates = self._sender.pack(task, clients)
        try:
            yield parcel, updates
        finally:
            self._sender.discard(parcel)

    def _answers(
        self, parcel: Parcel, waiting: dict[int, str], kind: TaskKind
    ) -> Iterator[tuple[int, tuple[bool, Reply]]]:
        """(row, answer) of those who are waited for, a portion at a time."""
        pool, rows = self._started(), list(waiting)
        asked = [
            [(rows[place], client) for place, client in portion]
            for portion in portions(list(waiting.values()), self._workers, kind)
        ]
        for done in as_completed([pool.submit(_answer, parcel, portion) for portion in asked]):
            yield from done.result()

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            assert self._shared is not None, "a parcel was packed before"
            self._pool = ProcessPoolExecutor(
                max_workers=self._workers,
                mp_context=get_context("spawn"),
                initializer=_start,
                initargs=(*self._given, self._shared.path),
            )
        return self._pool

    def _mourn(self, left: int) -> None:
        """Let go of a broken pool, and say so the first time."""
        assert self._pool is not None, "it was used"
        self._pool.shutdown(cancel_futures=True)
        self._pool = None
        if not self._told:
            logging.getLogger(__name__).warning(
                "a worker process was killed (out of memory?); workers are started again and %d clients redone",
                left,
            )
        self._told = True


def _start(sites: Path, config: Config, keep: Path | None, shared: Path) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    global _desk  # noqa: PLW0603  the one thing a worker process is
    _desk = Desk(sites, config, keep, SharedRows(shared))


def _answer(parcel: Parcel, portion: Sequence[tuple[int, str]]) -> list[tuple[int, tuple[bool, Reply]]]:
    assert _desk is not None, "the pool starts each worker with one"
    with one_thread():
        return _desk.answers(parcel, portion)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None, "a worker has a parent"
    connection.wait([parent.sentinel])
    os._exit(1)
