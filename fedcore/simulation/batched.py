"""A cohort in one computation, on this machine's processors or on a GPU: the results of `SerialFleet` up to rounding.

What is not the same computation for all (another framework than torch, layers that ``torch.func`` cannot batch,
personal models, noise of the clients' own) is done one client after another, and that is said once.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fedcore.adapters.layers import epochs
from fedcore.config import Config
from fedcore.errors import BadConfig, FedcoreError
from fedcore.local.client import Client
from fedcore.local.recent import Recent
from fedcore.local.work import Work
from fedcore.one_thread import one_thread
from fedcore.rng import generator
from fedcore.simulation.desk import Desk, enough_memory
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
        self._engine: Together | None = None
        self._alone = _not_one_computation(config)
        self._told = False
        self._limit = config.run.memory_mb * 2**20
        self._rows: Recent[tuple[torch.Tensor, torch.Tensor]] = Recent(self._limit)
        self._refuse_idle_device()

    def ask(self, task: Task, clients: Sequence[str]) -> Iterator[Reply]:
        """Replies in the order asked. Raises `ServiceError` where memory does not suffice."""
        if task.kind == "describe" or task.model is None or not clients:
            yield from self._one_by_one(task, clients)
            return
        engine = self._started(task)
        if engine is None:
            yield from self._one_by_one(task, clients)
        elif task.kind == "train":
            yield from self._together(engine, task, clients)
        else:
            score = engine.scores if self._config.run.device != "cpu" else None
            with one_thread():
                yield from self._desk.all(task, clients, score)

    def close(self) -> None:
        """Let go of rows on the device."""
        self._rows.clear()

    def _one_by_one(self, task: Task, clients: Sequence[str]) -> Iterator[Reply]:
        with one_thread():
            yield from self._desk.all(task, clients)

    def _started(self, task: Task) -> "Together | None":
        """The engine for the model of `task`; None where clients must train alone, which is said once."""
        if self._engine is None and self._alone is None:
            from fedcore.adapters.pytorch import TorchModel
            from fedcore.adapters.pytorch_together import Together

            model = self._desk.place.model(task.features)
            assert isinstance(model, TorchModel), "the plan's framework is torch"
            for device in dict.fromkeys(
                ("cpu", self._config.run.device)
            ):  # the processor tells most, see there
                engine = Together(model, device)
                self._alone = engine.obstacle()
                self._refuse_idle_device()
            self._engine = engine if self._alone is None else None
        if self._alone is not None and not self._told:
            self._told = True
            logging.getLogger(__name__).warning("clients train one after another: %s", self._alone)
        return self._engine

    def _refuse_idle_device(self) -> None:
        """Raise `BadConfig` where clients must train alone, on the processor, and another device was asked for."""
        if self._alone is not None and self._config.run.device != "cpu":
            raise BadConfig("run.device", self._config.run.device, f"cannot be used: {self._alone}; use cpu")

    def _together(self, engine: "Together", task: Task, clients: Sequence[str]) -> Iterator[Reply]:
        """Replies of groups that train at once, and of those whose rows cannot be used."""
        assert task.model is not None, "a train task carries a model"
        works: dict[Client, Work] = {}
        size = 0
        for name in clients:
            client = Client(name, self._sites, self._config, self._keep, self._desk.place)
            try:
                work = client.work(task.of(name))
            except FedcoreError:
                yield self._desk.answer(task, name)
                continue
            needed = 4 * task.model.nbytes + work.data.x_train.nbytes
            if works and size + needed > self._limit:
                yield from self._trained(engine, task, works)
                works, size = {}, 0
            works[client] = work
            size += needed
        if works:
            yield from self._trained(engine, task, works)

    def _trained(self, engine: "Together", task: Task, works: Mapping[Client, Work]) -> Iterator[Reply]:
        assert task.model is not None, "a train task carries a model"
        began, names = time.monotonic(), [client.name for client in works]
        members = [self._member(engine, client.name, work) for client, work in works.items()]
        chance = int(generator(self._config.seed, "together", task.round, *names).integers(2**63))
        with enough_memory(
            f"{len(works)} clients trained at once on {self._config.run.device}",
            f"lower run.memory_mb (now {self._config.run.memory_mb}) or local.batch_size",
        ):
            updates, losses = engine.train(task.model, members, chance)
        took = (time.monotonic() - began) / len(works)
        for (client, work), update, loss in zip(works.items(), updates, losses, strict=True):
            own, facts = task.of(client.name), {"loss": float(loss), "seconds": took}
            yield client.replied(own, partial(client.leaving, own, update, facts, work.rng))

    def _member(self, engine: "Together", client: str, work: Work) -> "Member":
        from fedcore.adapters.pytorch_together import Member

        x, y = work.data.x_train, work.data.y_train
        rows = self._rows.get(client) or self._rows.keep(client, (engine.put(x), engine.put(y)), x.nbytes)
        return Member(*rows, list(epochs(len(y), work.settings, work.rng)), work.settings)


def _not_one_computation(config: Config) -> str | None:
    """Why `config` gives clients more to do than one computation does for all; None if it does not."""
    if config.model.framework != "torch":
        return f"only torch models are batched, and model.framework is {config.model.framework}"
    if config.personal.algorithm != "none":
        return f"personal.algorithm {config.personal.algorithm} trains models of their own"
    if config.privacy.mode in ("local", "record"):
        return f"privacy.mode {config.privacy.mode} draws noise at each client"
    return None
