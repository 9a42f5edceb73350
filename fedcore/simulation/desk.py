"""Where a process answers for clients, whichever engine runs it."""

from collections.abc import Sequence
from pathlib import Path

from fedcore.config import Config
from fedcore.errors import ServiceError
from fedcore.local.client import Client
from fedcore.local.place import Place
from fedcore.simulation.parcels import Parcel, Receiver
from fedcore.simulation.shared import SharedRows
from fedcore.types import Reply, Task


class Desk:
    """One process's clients over the folders of `sites`; rows are shared below the folder `shared`, if there is one."""

    def __init__(self, sites: Path, config: Config, keep: Path | None, shared: Path | None = None) -> None:
        self._config, self._keep = config, keep
        self._place = Place(sites, config, None if shared is None else SharedRows(shared))
        self._receiver = Receiver()

    def answer(self, task: Task, client: str) -> Reply:
        """The client's reply. Raises `ServiceError` where memory does not suffice."""
        try:
            member = Client(client, self._place.sites, self._config, self._keep, self._place)
            return member.answer(task.of(client))
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
        task = self._receiver.unpack(parcel)
        return [(row, self._receiver.put(parcel, row, self.answer(task, client))) for row, client in portion]
