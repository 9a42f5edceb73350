"""Clients in worker processes of this machine: the same bytes as `SerialFleet`, whatever the count.

A worker reads its clients' rows itself, so only the model and the update cross the border. A
worker ends by itself when the process that started it is gone, however it went.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, get_context, parent_process
from pathlib import Path

from threadpoolctl import threadpool_limits

from fedcore.config import Config
from fedcore.errors import ServiceError
from fedcore.local.client import Client
from fedcore.types import Reply, Task

_members: dict[str, Client] = {}  # of this worker process, set once when it starts


class WorkerFleet:
    """Clients over the folders of `sites` in `workers` processes: see `fedcore.types.Fleet`.

    What a client keeps for itself lies in `keep`: the next worker that answers for it goes on from there.
    """

    def __init__(
        self, sites: Path, clients: tuple[str, ...], config: Config, workers: int, keep: Path | None = None
    ) -> None:
        self.clients: Sequence[str] = tuple(sorted(clients))
        self._pool = ProcessPoolExecutor(
            max_workers=workers,
            mp_context=get_context("spawn"),
            initializer=_start,
            initargs=(sites, tuple(self.clients), config, keep),
        )

    def ask(self, task: Task, clients: Sequence[str]) -> Iterator[Reply]:
        """Replies as they are ready. Raises `ServiceError` if a worker was killed; what arrived is kept."""
        waiting = [self._pool.submit(_answer, task.of(client), client) for client in clients]
        try:
            for done in as_completed(waiting):
                yield done.result()
        except BrokenProcessPool:
            raise ServiceError(
                "a worker process was killed (out of memory?); run again to go on from here"
            ) from None

    def close(self) -> None:
        """End the workers."""
        self._pool.shutdown(cancel_futures=True)


def _start(sites: Path, clients: tuple[str, ...], config: Config, keep: Path | None) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    threadpool_limits(1)
    _members.update({name: Client(name, sites, config, keep) for name in clients})


def _answer(task: Task, client: str) -> Reply:
    return _members[client].answer(task)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None, "a worker has a parent"
    connection.wait([parent.sentinel])
    os._exit(1)
