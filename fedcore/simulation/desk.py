"""Where a process answers for clients, whichever engine runs it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedcore.config import Config
from fedcore.errors import BadConfig, BadData, ServiceError
from fedcore.local.client import Client
from fedcore.local.place import Place
from fedcore.local.place import Rows as Encoded
from fedcore.simulation.parcels import TOGETHER, Parcel, Receiver
from fedcore.types import Reply, Task, Vector

Rows = NDArray[np.float32]
Score = Callable[[Vector, Rows], Rows]
_LESS = "lower run.workers, run.memory_mb or local.batch_size, or choose a smaller model"


class Desk:
    """One process's or thread's clients over the folders of `sites`; `rows` shares theirs with other desks."""

    def __init__(self, sites: Path, config: Config, keep: Path | None, rows: Encoded | None = None) -> None:
        self._config, self._keep = config, keep
        self.place = Place(sites, config, rows)
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
        with enough_memory(f"{client} was asked to {task.kind}", _LESS):
            member = Client(client, self.place.sites, self._config, self._keep, self.place)
            return member.answer(task.of(client), scores)

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
        """The model's scores of each client's test rows; of nobody with none, or whose rows cannot be used."""
        assert task.model is not None, "an evaluate task carries a model"
        rows: dict[str, Rows] = {}
        try:
            for client in clients:
                with suppress(BadData):  # its own reply says why
                    data = self.place.ready(client, task.features)[0]
                    rows |= {client: data.x_test} if len(data.y_test) else {}
            if not rows:
                return {}
            judged = score or self.place.model(task.features).scores
            with (
                enough_memory(f"{len(rows)} clients were asked to {task.kind}", _LESS),
                np.errstate(all="ignore"),
            ):
                scores = judged(task.model, np.concatenate(list(rows.values())))
        except BadConfig:  # a model that does not fit the rows: each client's reply says so
            return {}
        cuts = np.cumsum([len(part) for part in rows.values()])[:-1]
        return dict(zip(rows, np.split(scores, cuts), strict=True))


@contextmanager
def enough_memory(doing: str, mend: str) -> Iterator[None]:
    """Raise `ServiceError`, saying what was done and what mends it, where memory does not suffice."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        said = str(error)
        if isinstance(error, RuntimeError) and not ("allocate memory" in said or "out of memory" in said):
            raise
        raise ServiceError(f"out of memory while {doing}; {mend}") from None
