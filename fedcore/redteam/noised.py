"""Canaries under local privacy: each adds its own noise, as every client does, and the server sees each update.

All of them take part. A secret coin decides which of two opposite updates one sends, each as long as a client may
send: *one client's update replaced by any other* is the relation that the accountant of local noise speaks of. What is
audited is the clip and the noise that clients run (`fedcore.transforms.client`), by what leaves them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedcore.config import PrivacyConfig
from fedcore.redteam.canary import LONG, Canaries
from fedcore.rng import generator
from fedcore.transforms.client import client_chain
from fedcore.types import Fleet, Floats, Reply, Task


@dataclass(frozen=True)
class NoisedFleet:
    """`fleet` and canaries that clip and noise by `privacy` what their coin lets them send; `seed` is of simulations."""

    fleet: Fleet
    canaries: Canaries
    privacy: PrivacyConfig
    seed: int

    @property
    def clients(self) -> Sequence[str]:
        """Names of all clients, every canary among them."""
        return sorted((*self.fleet.clients, *self.canaries.names))

    def ask(self, task: Task, clients: Sequence[str]) -> Iterator[Reply]:
        """The replies of the fleet's clients, then those of the canaries that were asked."""
        strangers = frozenset(self.canaries.names)
        yield from self.fleet.ask(task, [client for client in clients if client not in strangers])
        if task.kind != "train":
            return
        assert task.model is not None, "a train task carries a model"
        asked, directions = frozenset(clients), self.canaries.directions(task.model.size)
        for name, direction, coin in zip(
            self.canaries.names, directions, self.canaries.included, strict=True
        ):
            if name in asked:
                update = (LONG * self.privacy.clip * (1.0 if coin else -1.0) * direction).astype(np.float32)
                chain = client_chain(self.privacy, seeded=self._seeded(task, name))
                sent, _ = chain.apply(update, chain.init(), np.random.default_rng(0))
                yield Reply(name, {}, sent, None, task.round, task.model_sha256)

    def _seeded(self, task: Task, name: str) -> np.random.Generator | None:
        if self.privacy.noise == "system":
            return None
        return generator(self.seed, "noise", task.run, task.round, name)


def sent_along(canaries: Canaries, replies: Mapping[str, Reply], size: int, clip: float) -> Floats:
    """What a round adds to each canary's score (m,): its own noised update along its direction, in clips."""
    directions, score = canaries.directions(size), np.zeros(canaries.count)
    for number, name in enumerate(canaries.names):
        vector = replies[name].vector if name in replies else None
        if vector is not None and np.isfinite(vector).all():
            score[number] = float(directions[number].astype(np.float64) @ vector) / clip
    return score
