"""All clients in this process, one after another: the reference that every other engine must equal."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from fedcore.config import Config
from fedcore.one_thread import one_thread
from fedcore.simulation.desk import Desk
from fedcore.types import Reply, Task


class SerialFleet:
    """Clients over the folders of `sites`, with what is theirs alone in `keep`: see `fedcore.types.Fleet`."""

    def __init__(
        self, sites: Path, clients: tuple[str, ...], config: Config, keep: Path | None = None
    ) -> None:
        self.clients: Sequence[str] = tuple(sorted(clients))
        self._desk = Desk(sites, config, keep)

    def ask(self, task: Task, clients: Sequence[str]) -> Iterator[Reply]:
        """Replies in the order asked, computed on one thread: the same bytes whatever the machine's cores."""
        with one_thread():
            yield from self._desk.all(task, clients)

    def close(self) -> None:
        """Nothing to let go of."""
