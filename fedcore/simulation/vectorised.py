"""Thousands of virtual clients of a softmax regression: a whole cohort trains in one computation.

The updates are those of `SerialFleet` up to rounding: each client takes its own steps, from the
same model, on its own rows; only the loop over clients is inside the matrix products. Whatever
would make clients differ in more than their rows (batches in random order, noise of their own)
is refused: use `SerialFleet` for it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fedcore.adapters.model import ModelSpec, build_model, model_spec
from fedcore.config import Config
from fedcore.data.features import Features
from fedcore.data.federated import SiteData, load_site
from fedcore.data.schema import Schema
from fedcore.errors import BadInput, Diverged, PlanRefused, TooFewClients
from fedcore.local.metrics import measure
from fedcore.local.personal import refuse_own
from fedcore.local.sgd import training
from fedcore.privacy.leaves import error_sent, facts_sent
from fedcore.transforms.client import client_chain
from fedcore.types import Json, Reply, Task, Updates, Vector

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class _Rows:
    """All clients' rows one after another: client i's are ``x[start[i]:start[i + 1]]``."""

    x: Rows  # (rows, inputs)
    y: NDArray[np.int64]  # (rows,) class numbers
    start: NDArray[np.int64]  # (clients + 1,)

    @classmethod
    def of(cls, parts: Sequence[tuple[Rows, Rows]]) -> Self:
        """From each client's rows and classes, in order."""
        x = np.concatenate([x for x, _ in parts])
        y = np.concatenate([y for _, y in parts]).astype(np.int64)
        flat = x.reshape(len(x), math.prod(x.shape[1:]))
        return cls(flat, y, np.cumsum([0, *(len(y) for _, y in parts)]))

    def padded(self, members: NDArray[np.intp]) -> tuple[Rows, NDArray[np.int64], Rows]:
        """Rows of `members` (m, r, inputs), their classes (m, r), and what each row weighs in its client's mean."""
        sizes = self.start[members + 1] - self.start[members]
        place = np.arange(sizes.max(initial=0))
        real = place < sizes[:, None]
        index = np.where(real, self.start[members][:, None] + place, 0)
        weight = real / np.maximum(sizes, 1)[:, None]
        return self.x[index], self.y[index], weight.astype(np.float32)


class SoftmaxFleet:
    """Clients of one softmax regression, held in memory: see `fedcore.types.Fleet`.

    Raises `PlanRefused` for a model or local settings that cannot be computed for all at once, and
    `BadInput` for a client without training rows.
    """

    def __init__(self, rows: Mapping[str, SiteData], spec: ModelSpec, config: Config) -> None:
        self.clients: Sequence[str] = tuple(sorted(rows))
        most = max((len(data.y_train) for data in rows.values()), default=0)
        _refuse(spec, config, most)
        empty = [name for name in self.clients if not len(rows[name].y_train)]
        if empty:
            raise BadInput(f"client {empty[0]} has no rows to train on; leave it out")
        if not rows:
            raise TooFewClients(1, 0, "a fleet of virtual clients")
        self._config, self._spec, self._model = config, spec, build_model(spec)
        self._at = {name: place for place, name in enumerate(self.clients)}
        self._train = _Rows.of([(rows[name].x_train, rows[name].y_train) for name in self.clients])
        self._test = _Rows.of([(rows[name].x_test, rows[name].y_test) for name in self.clients])

    @classmethod
    def over(cls, sites: Path, clients: Sequence[str], config: Config, features: Features) -> Self:
        """The fleet over the folders of `sites`, their rows encoded with `features`."""
        schema, fraction = Schema.load(sites), config.data.test_fraction
        rows = {
            name: load_site(sites / name, schema, features, config.seed, name, fraction) for name in clients
        }
        return cls(rows, model_spec(config.model, schema, features), config)

    @property
    def rows(self) -> dict[str, int]:
        """Training rows of each client, as `build_plan` takes them."""
        sizes = np.diff(self._train.start)
        return {name: int(size) for name, size in zip(self.clients, sizes, strict=True)}

    def ask(self, task: Task, clients: Sequence[str]) -> Iterator[Reply]:
        """Replies in the order asked.

        Raises `BadInput` for any task but ``train`` and ``evaluate``, `PlanRefused` for small batches.
        """
        if task.kind not in ("train", "evaluate") or task.model is None:
            raise BadInput(
                f"this fleet answers train and evaluate, got {task.kind}; its rows are encoded already"
            )
        if task.batch_sizes:
            raise PlanRefused(
                "all clients at once take steps on all their rows, and time.classes gives some too little memory for "
                "that; raise memory_mb, or run one client after another"
            )
        if not clients:
            return iter(())
        members = np.array([self._at[client] for client in clients])
        return self._trained(task, clients, members) if task.kind == "train" else self._judged(task, clients)

    def close(self) -> None:
        """Nothing to let go of."""

    def _trained(self, task: Task, clients: Sequence[str], members: NDArray[np.intp]) -> Iterator[Reply]:
        assert task.model is not None
        updates, losses = self._updates(task.model, task.round, members)
        chain, unused = client_chain(self._config.privacy), np.random.default_rng(0)
        for client, update, loss in zip(clients, updates, losses, strict=True):
            if not (np.isfinite(loss) and np.isfinite(update).all()):
                why = f"{client}: {Diverged('loss or update is not finite')}"
                facts = facts_sent("train", {"diverged": True}, self._config.privacy)
                yield Reply(client, facts, error=error_sent("train", client, why, self._config.privacy))
                continue
            sent, _ = chain.apply(update, chain.init(), unused)
            facts = facts_sent("train", {"loss": float(loss)}, self._config.privacy)
            yield Reply(client, facts, sent, None, task.round, task.model_sha256)

    def _updates(
        self, model: Vector, round_number: int, members: NDArray[np.intp]
    ) -> tuple[Updates, NDArray[np.float64]]:
        """Each member's update (m, d) and its loss in the last epoch (m,): full-batch steps with momentum."""
        settings = training(self._config.local, round_number)
        x, y, weight = self._train.padded(members)
        vectors = np.repeat(model[None, :], len(members), axis=0)
        velocity, losses = np.zeros_like(vectors), np.zeros(len(members))
        for _ in range(settings.steps or settings.epochs):
            losses, gradient = self._gradients(vectors, x, y, weight)
            gradient += np.float32(settings.weight_decay) * vectors
            velocity = np.float32(settings.momentum) * velocity + gradient
            vectors -= np.float32(settings.lr) * velocity
        vectors -= model
        return vectors, losses

    def _gradients(
        self, vectors: Updates, x: Rows, y: NDArray[np.int64], weight: Rows
    ) -> tuple[NDArray[np.float64], Updates]:
        """Cross-entropy (m,) and its gradient (m, d), each client's at its own vector."""
        m, outputs = len(vectors), self._spec.outputs
        cut = vectors.shape[1] - outputs
        matrix, bias = vectors[:, :cut].reshape(m, outputs, -1), vectors[:, cut:]
        scores = np.matmul(x, matrix.transpose(0, 2, 1)) + bias[:, None, :]  # (m, r, outputs)
        shifted = np.exp(scores - scores.max(axis=2, keepdims=True))
        back = shifted / shifted.sum(axis=2, keepdims=True)
        chance = np.take_along_axis(back, y[:, :, None], axis=2)
        losses = -(np.log(np.maximum(chance[:, :, 0], np.finfo(np.float32).tiny)) * weight).sum(axis=1)
        np.put_along_axis(back, y[:, :, None], chance - 1, axis=2)
        back *= weight[:, :, None]
        slopes = np.matmul(back.transpose(0, 2, 1), x).reshape(m, cut)
        return losses.astype(np.float64), np.concatenate([slopes, back.sum(axis=1)], axis=1)

    def _judged(self, task: Task, clients: Sequence[str]) -> Iterator[Reply]:
        """Each client's sums over its own test rows, from one product over everyone's."""
        assert task.model is not None
        scores = self._model.scores(task.model, self._test.x) if len(self._test.y) else self._test.x
        for client in clients:
            place = self._at[client]
            own = slice(self._test.start[place], self._test.start[place + 1])
            facts: dict[str, Json] = {"rows": 0}
            if own.stop > own.start:
                facts = measure(scores[own], self._test.y[own].astype(np.float32), self._spec.task)
            facts = facts_sent("evaluate", facts, self._config.privacy)
            yield Reply(client, facts, None, None, task.round, task.model_sha256)


def _refuse(spec: ModelSpec, config: Config, most: int) -> None:
    """Raise `PlanRefused` for what is not the same computation for every client."""
    local = config.local
    if spec.name != "logistic" or spec.factory is not None or spec.outputs < 3:
        raise PlanRefused(
            f"all clients at once can be computed for a softmax regression alone, got model {spec.factory or spec.name} "
            f"with {spec.outputs} outputs; set model.name: logistic on data of 3 classes or more, or run one after another"
        )
    if local.algorithm != "sgd" or local.batch_size < most:
        raise PlanRefused(
            f"all clients at once take steps on all their rows: local.algorithm {local.algorithm} with "
            f"local.batch_size {local.batch_size} for up to {most} rows is not that; "
            f"set local.algorithm: sgd and local.batch_size: {most}"
        )
    refuse_own(config, "a computation of all clients at once")
    privacy = config.privacy
    if privacy.evaluation == "noised":
        raise PlanRefused(
            "privacy.evaluation noised with all clients at once: their metrics would leave without being bounded; "
            "run one client after another, or set privacy.evaluation: off"
        )
    if privacy.mode not in ("none", "central") or privacy.clipping != "flat":
        raise PlanRefused(
            f"privacy.mode {privacy.mode} with privacy.clipping {privacy.clipping} gives each client more to do than to "
            "clip its update at one norm; run one client after another"
        )
