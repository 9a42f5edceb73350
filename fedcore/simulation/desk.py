"""Where a process answers for clients, whichever engine runs it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedcore.config import Config
from fedcore.errors import FedcoreError, ServiceError
from fedcore.local.client import Client
from fedcore.local.personal import measured
from fedcore.local.place import Place
from fedcore.simulation.parcels import TOGETHER, Parcel, Receiver
from fedcore.simulation.shared import SharedRows
from fedcore.types import Reply, Task, Vector

Rows = NDArray[np.float32]
Score = Callable[[Vector, Rows], Rows]


class Desk:
    """One process's clients over the folders of `sites`; rows are shared below the folder `shared`, if there is one."""

    def __init__(self, sites: Path, config: Config, keep: Path | None, shared: Path | None = None) -> None:
        self._config, self._keep = config, keep
        self.place = Place(sites, config, None if shared is None else SharedRows(shared))
        self._receiver = Receiver()

    def all(self, task: Task, clients: Sequence[str], score: Score | None = None) -> Iterator[Reply]:
        """The clients' replies in order; a model is judged on the rows of `TOGETHER` of them in one pass.

        `score` gives scores of rows by parameters (None: the model itself).
        Raises `ServiceError` where memory does not suffice.
        """
        step = TOGETHER if task.kind == "evaluate" else 1
        for start in range(0, len(clients), step):
            group = clients[start : start + step]
            scores = self._scores(task, group, score) if task.kind == "evaluate" else {}
            for client in group:
                yield self.answer(task, client, scores.get(client))

    def answer(self, task: Task, client: str, scores: Rows | None = None) -> Reply:
        """The client's reply, `scores` being the model's of its test rows. Raises `ServiceError` as `all` does."""
        try:
            member = Client(client, self.place.sites, self._config, self._keep, self.place)
            return member.answer(task.of(client), scores)
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
                raise
            raise ServiceError(
                f"out of memory while {client} was asked to {task.kind}; lower run.workers, run.memory_mb or "
                "local.batch_size, or choose a smaller model"
            ) from None

    def answers(
        self, parcel: Parcel, portion: Sequence[tuple[int, str]]
    ) -> list[tuple[int, tuple[bool, Reply]]]:
        """The replies of (row, client) each, updates in their rows of the parcel's matrix."""
        replies = self.all(self._receiver.unpack(parcel), [client for _, client in portion])
        return [
            (row, self._receiver.put(parcel, row, reply))
            for (row, _), reply in zip(portion, replies, strict=True)
        ]

    def _scores(self, task: Task, clients: Sequence[str], score: Score | None) -> Mapping[str, Rows]:
        """The model's scores of each client's test rows; of nobody where something is in the way, which each then says."""
        if task.model is None or measured(self._config) or self._config.privacy.mode != "none":
            return {}
        try:
            ready = {client: self.place.ready(client, task.features) for client in clients}
            rows = {client: data.x_test for client, (data, _) in ready.items() if len(data.y_test)}
            if not rows:
                return {}
            model = next(model for _, model in ready.values())
            with np.errstate(all="ignore"):
                together = (score or model.scores)(task.model, np.concatenate(list(rows.values())))
        except (FedcoreError, MemoryError, RuntimeError):
            return {}
        cuts = np.cumsum([len(part) for part in rows.values()])[:-1]
        return dict(zip(rows, np.split(together, cuts), strict=True))
