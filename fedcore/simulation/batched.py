"""A cohort in one computation, on this machine's processors or on a GPU: the results of `SerialFleet` up to rounding.

What is not the same computation for all (another framework than torch, layers that ``torch.func`` cannot batch,
personal models, noise of the clients' own) is done one client after another, and that is said once.
"""

import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from threadpoolctl import ThreadpoolController

from fedcore.adapters.layers import epochs
from fedcore.config import Config
from fedcore.errors import BadConfig, FedcoreError, ServiceError
from fedcore.local.client import Client
from fedcore.local.work import Work
from fedcore.rng import generator
from fedcore.simulation.desk import Desk
from fedcore.types import Reply, Task

if TYPE_CHECKING:
    import torch

    from fedcore.adapters.pytorch_together import Member, Together


class BatchedFleet:
    """Clients over the folders of `sites`, with what is theirs alone in `keep`: see `fedcore.types.Fleet`.

    So many train at once as fit into ``run.memory_mb``, their rows and four copies of the model each, what layers
    remember of a batch not counted. Raises `BadConfig` for a ``run.device`` that is not there.
    """

    def __init__(
        self, sites: Path, clients: tuple[str, ...], config: Config, keep: Path | None = None
    ) -> None:
        self.clients: Sequence[str] = tuple(sorted(clients))
        self._config, self._sites, self._keep = config, sites, keep
        self._desk = Desk(sites, config, keep)
        self._threads = ThreadpoolController()
        self._engine: Together | None = None
        self._alone = _not_one_computation(config)
        self._told = False
        self._rows: OrderedDict[str, tuple[torch.Tensor, torch.Tensor]] = OrderedDict()
        self._limit = config.run.memory_mb * 2**20
        if self._alone is not None and config.run.device != "cpu":
            raise BadConfig("run.device", config.run.device, f"cannot be used: {self._alone}; use cpu")

    def ask(self, task: Task, clients: Sequence[str]) -> Iterator[Reply]:
        """Replies in the order asked. Raises `ServiceError` where memory does not suffice."""
        if task.kind == "describe" or task.model is None or not clients:
            yield from self._one_by_one(task, clients)
            return
        engine = self._started(task, clients[0])
        if engine is None:
            yield from self._one_by_one(task, clients)
        elif task.kind == "train":
            waiting = iter(clients)
            while group := list(islice(waiting, self._at_once(task))):
                yield from self._trained(engine, task, group)
        else:
            score = engine.scores if self._config.run.device != "cpu" else None
            with self._threads.limit(limits=1):
                yield from self._desk.all(task, clients, score)

    def close(self) -> None:
        """Let go of rows on the device."""
        self._rows.clear()

    def _one_by_one(self, task: Task, clients: Sequence[str]) -> Iterator[Reply]:
        with self._threads.limit(limits=1):
            yield from self._desk.all(task, clients)

    def _started(self, task: Task, client: str) -> "Together | None":
        """The engine for the model of `task`; None where clients must train alone, which is said once."""
        if self._engine is None and self._alone is None:
            from fedcore.adapters.pytorch import TorchModel
            from fedcore.adapters.pytorch_together import Together

            try:
                model = self._desk.place.ready(client, task.features)[1]
            except FedcoreError:
                return None  # its own reply says why
            assert isinstance(model, TorchModel), "the plan's framework is torch"
            engine = Together(model, self._config.run.device)
            self._alone = engine.obstacle()
            self._engine = engine if self._alone is None else None
        if self._alone is not None and not self._told:
            self._told = True
            logging.getLogger(__name__).warning("clients train one after another: %s", self._alone)
        return self._engine

    def _at_once(self, task: Task) -> int:
        assert task.model is not None, "asked for with a model"
        rows = max((x.nbytes for x, _ in self._rows.values()), default=0)
        return int(max(1, self._limit // (4 * task.model.nbytes + rows)))

    def _trained(self, engine: "Together", task: Task, clients: Sequence[str]) -> Iterator[Reply]:
        """Replies of those who train in one computation, and of those whose rows cannot be used."""
        works: dict[str, Work] = {}
        for client in clients:
            try:
                works[client] = self._client(client).work(task.of(client))
            except FedcoreError:
                yield self._desk.answer(task, client)
        if not works:
            return
        assert task.model is not None, "asked for with a model"
        members = [self._member(engine, client, work) for client, work in works.items()]
        chance = int(generator(self._config.seed, "together", task.round, *works).integers(2**63))
        try:
            updates, losses = engine.train(task.model, members, chance)
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise
            raise ServiceError(
                f"out of memory while {len(works)} clients trained at once on {self._config.run.device}; lower "
                f"run.memory_mb (now {self._config.run.memory_mb}) or local.batch_size"
            ) from None
        for (client, work), update, loss in zip(works.items(), updates, losses, strict=True):
            member, own = self._client(client), task.of(client)
            leave = partial(member.leaving, own, update, {"loss": float(loss)}, work.rng)
            yield member.replied(own, leave)

    def _client(self, name: str) -> Client:
        return Client(name, self._sites, self._config, self._keep, self._desk.place)

    def _member(self, engine: "Together", client: str, work: Work) -> "Member":
        from fedcore.adapters.pytorch_together import Member

        if client not in self._rows:
            self._rows[client] = (engine.put(work.data.x_train), engine.put(work.data.y_train))
        self._rows.move_to_end(client)
        while len(self._rows) > 1 and sum(x.nbytes for x, _ in self._rows.values()) > self._limit:
            self._rows.popitem(last=False)
        x, y = self._rows[client]
        return Member(x, y, list(epochs(len(y), work.settings, work.rng)), work.settings)


def _not_one_computation(config: Config) -> str | None:
    """Why `config` gives clients more to do than one computation does for all; None if it does not."""
    if config.model.framework != "torch":
        return f"only torch models are batched, and model.framework is {config.model.framework}"
    if config.personal.algorithm != "none":
        return f"personal.algorithm {config.personal.algorithm} trains models of their own"
    if config.privacy.mode in ("local", "record"):
        return f"privacy.mode {config.privacy.mode} draws noise at each client"
    return None
