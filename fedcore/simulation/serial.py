"""All clients in this process, one after another: the reference that every other engine must equal."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from threadpoolctl import ThreadpoolController

from fedcore.config import Config
from fedcore.local.client import Client
from fedcore.local.place import Place
from fedcore.types import Reply, Task


class SerialFleet:
    """Clients over the folders of `sites`, with what is theirs alone in `keep`: see `fedcore.types.Fleet`."""

    def __init__(
        self, sites: Path, clients: tuple[str, ...], config: Config, keep: Path | None = None
    ) -> None:
        self.clients: Sequence[str] = tuple(sorted(clients))
        self._config, self._keep, self._place = config, keep, Place(sites, config)
        self._threads = ThreadpoolController()

    def ask(self, task: Task, clients: Sequence[str]) -> Iterator[Reply]:
        """Replies in the order asked, computed on one thread: the same bytes whatever the machine's cores."""
        place = self._place
        with self._threads.limit(limits=1):
            for name in clients:
                yield Client(name, place.sites, self._config, self._keep, place).answer(task.of(name))

    def close(self) -> None:
        """Nothing to let go of."""
