"""Fleets with liars: what honest clients sent is seen first, then the liars' replies are forged.

Each keeps `fedcore.types.Fleet`, so the round that runs under attack is the round itself.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from fedcore.adapters.model import build_model, model_spec
from fedcore.config import Config
from fedcore.data.features import Features
from fedcore.data.federated import SiteData, load_site
from fedcore.data.schema import Schema
from fedcore.local.sgd import algorithm, training
from fedcore.redteam.attacks import Attack, Poison
from fedcore.rng import generator
from fedcore.types import Fleet, Json, Reply, Task, Transform, Updates, Vector, canonical_json

Combine = Callable[
    [Sequence[str], Updates], Vector
]  # clients and their rows -> what the server makes of them


@dataclass(frozen=True)
class HostileFleet:
    """`fleet` in which the clients `hostile` send what `attack` forges from all that was sent.

    `combine` is the server's aggregation, which the liars know. `poisoned` trains the liars of an
    attack on data. Liars do not answer an evaluation: their numbers say nothing of the model.
    """

    fleet: Fleet
    hostile: tuple[str, ...]
    attack: Attack
    combine: Combine
    seed: int
    poisoned: Fleet | None = None
    options: Mapping[str, float] = field(default_factory=dict)

    @property
    def clients(self) -> Sequence[str]:
        """Names of all clients, liars included."""
        return self.fleet.clients

    def ask(self, task: Task, clients: Sequence[str]) -> Iterator[Reply]:
        """Honest replies, then the forged ones, which wait for all of them."""
        honest = list(self.fleet.ask(task, [client for client in clients if client not in self.hostile]))
        yield from honest
        liars = [client for client in clients if client in self.hostile]
        if task.kind == "train" and liars:
            yield from self._forged(task, honest, list((self.poisoned or self.fleet).ask(task, liars)))

    def _forged(self, task: Task, honest: Sequence[Reply], own: Sequence[Reply]) -> Iterator[Reply]:
        """The liars' replies; as they are where there is nothing to forge from."""
        (truth, true_rows), (liars, own_rows) = _rows(honest), _rows(own)
        if not truth or not liars:
            yield from own
            return
        rng = generator(self.seed, "attack", task.round)
        names = [*truth, *liars]
        forged = self.attack.forge(
            true_rows, own_rows, rng=rng, aggregate=lambda rows: self.combine(names, rows), **self.options
        )
        for client, row in zip(liars, forged, strict=True):
            yield Reply(client, {}, row)


@dataclass(frozen=True)
class TransformedFleet:
    """`fleet` whose updates go through `transform` on their way: compression, clipping, noise."""

    fleet: Fleet
    transform: Transform
    seed: int

    @property
    def clients(self) -> Sequence[str]:
        """Names of all clients."""
        return self.fleet.clients

    def ask(self, task: Task, clients: Sequence[str]) -> Iterator[Reply]:
        """The replies, each update transformed with randomness of its own."""
        for reply in self.fleet.ask(task, clients):
            if reply.vector is None:
                yield reply
                continue
            rng = generator(self.seed, "transform", task.round, reply.client)
            update, _ = self.transform.apply(reply.vector, self.transform.init(), rng)
            yield replace(reply, vector=update)


class PoisonedFleet:
    """Clients over the folders of `sites` that train on rows which `poison` has changed; they only train."""

    def __init__(self, sites: Path, clients: Sequence[str], config: Config, poison: Poison) -> None:
        self.clients: Sequence[str] = tuple(sorted(clients))
        self._sites, self._config, self._poison = sites, config, poison
        self._schema = Schema.load(sites)
        self._rows: dict[str, SiteData] = {}

    def ask(self, task: Task, clients: Sequence[str]) -> Iterator[Reply]:
        """An update of each client, trained as an honest one trains."""
        assert task.kind == "train", "a poisoned client is asked to train and for nothing else"
        assert task.model is not None, "a train task carries a model"
        model = build_model(model_spec(self._config.model, self._schema, _features(task.features)))
        local = self._config.local
        for client in clients:
            rng = generator(self._config.seed, "train", task.round, client)
            settings = training(local, task.round, task.corrections.get(client))
            update, facts = algorithm(local.algorithm)(
                model, task.model, self._data(client, task.features), settings, rng
            )
            yield Reply(client, facts, update)

    def _data(self, client: str, features: Json) -> SiteData:
        if client not in self._rows:
            seed, fraction = self._config.seed, self._config.data.test_fraction
            rows = load_site(self._sites / client, self._schema, _features(features), seed, client, fraction)
            classes = len(self._schema.classes)
            self._rows[client] = self._poison(rows, classes, generator(seed, "poison", client))
        return self._rows[client]


def draw_hostile(clients: Sequence[str], count: int, seed: int) -> tuple[str, ...]:
    """`count` of `clients`, drawn once from `seed`, sorted."""
    chosen = generator(seed, "hostile").choice(len(clients), size=count, replace=False)
    return tuple(sorted(clients[i] for i in chosen))


def _rows(replies: Sequence[Reply]) -> tuple[list[str], Updates]:
    """Clients that sent an update, sorted, and their updates as a matrix."""
    sent = {r.client: r.vector for r in replies if r.error is None and r.vector is not None}
    return sorted(sent), np.array([sent[client] for client in sorted(sent)], np.float32)


def _features(tree: Json) -> Features:
    return Features.from_json(canonical_json(tree))
