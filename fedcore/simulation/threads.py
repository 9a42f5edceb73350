"""All clients in this process, on several threads: the bytes of `SerialFleet`, without processes to start or feed.

It pays where most of a client's time passes inside torch or numpy, which let other threads run meanwhile. Each thread
has a desk of its own, so that no model is in two hands; encoded rows are shared.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from weakref import WeakValueDictionary

from fedcore.config import Config
from fedcore.data.federated import SiteData
from fedcore.errors import BadConfig
from fedcore.one_thread import one_thread
from fedcore.simulation.desk import Desk
from fedcore.simulation.parcels import portions
from fedcore.types import Reply, Task


class ThreadFleet:
    """Clients over the folders of `sites` on `threads` threads: see `fedcore.types.Fleet`.

    Raises `BadConfig` for models whose training depends on what other threads do.
    """

    def __init__(
        self, sites: Path, clients: tuple[str, ...], config: Config, threads: int, keep: Path | None = None
    ) -> None:
        _refuse(_depends(config))
        self.clients: Sequence[str] = tuple(sorted(clients))
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="clients")
        self._desks: SimpleQueue[Desk] = SimpleQueue()
        rows, answered = SameRows(), dict[str, dict[str, int]]()
        part = replace(config, run=replace(config.run, memory_mb=max(1, config.run.memory_mb // threads)))
        for _ in range(threads):
            desk = Desk(sites, part, keep, rows)
            desk.place.answered = answered
            self._desks.put(desk)
        self._model = desk.place.model

    def ask(self, task: Task, clients: Sequence[str]) -> Iterator[Reply]:
        """Replies in the order asked, each computed on one thread: the same bytes whatever their number."""
        if task.kind == "train" and getattr(self._model(task.features), "draws", False):
            _refuse("a module that draws while it trains (dropout) takes from a generator all threads share")
        with one_thread():
            asked = [
                self._pool.submit(self._answers, task, [client for _, client in portion])
                for portion in portions(clients, self._threads, task.kind)
            ]
            try:
                for waiting in asked:
                    yield from waiting.result()
            finally:
                for waiting in asked:
                    waiting.cancel()

    def close(self) -> None:
        """End the threads once they are through with the client they are at."""
        self._pool.shutdown(cancel_futures=True)

    def _answers(self, task: Task, clients: Sequence[str]) -> list[Reply]:
        desk = self._desks.get()
        try:
            return list(desk.all(task, clients))
        finally:
            self._desks.put(desk)


class SameRows:
    """Encoded rows for all desks of one process, as long as one of them keeps them."""

    def __init__(self) -> None:
        self._kept: WeakValueDictionary[tuple[str, str], SiteData] = WeakValueDictionary()

    def __call__(self, client: str, encoding: str, encode: Callable[[], SiteData]) -> SiteData:
        """The client's rows: those another desk keeps, or newly encoded ones."""
        found = self._kept.get((client, encoding))
        if found is None:
            found = self._kept[client, encoding] = encode()
        return found


def _depends(config: Config) -> str | None:
    """Why clients of `config` cannot train on threads of one process; None if they can."""
    if config.model.framework not in ("torch", "numpy", "sklearn"):
        return (
            f"model.framework {config.model.framework} takes what it draws from a generator all threads share"
        )
    if config.privacy.mode == "record" and config.model.framework == "torch":
        return "opacus draws from a generator all threads share"
    return None


def _refuse(why: str | None) -> None:
    if why is not None:
        raise BadConfig("run.engine", "threads", f"cannot be used: {why}; use workers")
