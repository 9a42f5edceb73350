"""A task on its way to another process: its arrays lie in shared memory, and only their places travel.

The model is written once a round, whatever the number of clients; each client's update comes back in a row of
one matrix (n, d) that both sides map.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.simulation.shared import empty, read, write
from fedcore.types import Json, Reply, Task, TaskKind, canonical_json

TOGETHER = 8  # clients on whose rows a model is judged in one pass, whichever process does it


@dataclass(frozen=True)
class Parcel:
    """A task without its arrays: where they lie, and where the updates go (None: to where vectors are few)."""

    number: int
    plain: Mapping[str, Any]
    arrays: Mapping[str, Path]
    tables: Mapping[str, tuple[Path, tuple[str, ...]]]  # a row for each of some clients
    features: Path | None
    updates: Path | None


class Sender:
    """The side that asks: makes parcels in `folder`, takes updates out of them, and throws them away."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._numbers = folder, itertools.count()
        self._features: tuple[Json, Path | None] = (None, None)

    def pack(self, task: Task, clients: int) -> tuple[Parcel, NDArray[np.float32] | None]:
        """The parcel for so many clients, and the matrix of their updates if they are asked for any."""
        number = next(self._numbers)
        plain: dict[str, Any] = {}
        arrays: dict[str, Path] = {}
        tables: dict[str, tuple[Path, tuple[str, ...]]] = {}
        for field in fields(task):
            value, file = getattr(task, field.name), self._folder / f"{number}-{field.name}.npy"
            if isinstance(value, np.ndarray):
                arrays[field.name] = write(file, value)
            elif isinstance(value, Mapping) and any(isinstance(part, np.ndarray) for part in value.values()):
                tables[field.name] = (write(file, np.stack(list(value.values()))), tuple(value))
            elif field.name != "features":
                plain[field.name] = value
        updates, path = None, None
        if task.kind == "train" and task.model is not None:
            path = self._folder / f"{number}-updates.npy"
            updates = empty(path, clients, task.model.size)
        return Parcel(number, plain, arrays, tables, self._described(task.features), path), updates

    def discard(self, parcel: Parcel) -> None:
        """Give the parcel's memory back; updates that are still held stay readable."""
        files = [*parcel.arrays.values(), *(path for path, _ in parcel.tables.values()), parcel.updates]
        for file in files:
            if file is not None:
                file.unlink(missing_ok=True)

    def _described(self, features: Json) -> Path | None:
        """Where the features lie; they are written once for all rounds."""
        if features is None:
            return None
        known, path = self._features
        if path is None or known is not features:
            path = self._folder / f"features-{next(self._numbers)}.json"
            path.write_text(canonical_json(features), encoding="utf-8")
            self._features = (features, path)
        return path


class Receiver:
    """The side that answers: a parcel is opened once, whatever the number of clients."""

    def __init__(self) -> None:
        self._opened: tuple[int, Task, NDArray[np.float32] | None] | None = None
        self._features: tuple[Path | None, Json] = (None, None)

    def unpack(self, parcel: Parcel) -> Task:
        """The task, its arrays mapped from shared memory."""
        return self._open(parcel)[0]

    def put(self, parcel: Parcel, row: int, reply: Reply) -> tuple[bool, Reply]:
        """Whether the update was put into its row of the matrix, and the reply without it if so."""
        updates, vector = self._open(parcel)[1], reply.vector
        fits = updates is not None and vector is not None and vector.dtype == np.float32
        if not fits or vector.shape != updates.shape[1:]:  # type: ignore[union-attr]
            return False, reply
        updates[row] = vector  # type: ignore[index]
        return True, replace(reply, vector=None)

    def _open(self, parcel: Parcel) -> tuple[Task, NDArray[np.float32] | None]:
        if self._opened is None or self._opened[0] != parcel.number:
            given: dict[str, Any] = dict(parcel.plain)
            given |= {name: read(path) for name, path in parcel.arrays.items()}
            for name, (path, names) in parcel.tables.items():
                given[name] = dict(zip(names, read(path), strict=True))
            updates = None if parcel.updates is None else read(parcel.updates, shared=True)
            task = Task(**given, features=self._read(parcel.features))
            self._opened = (parcel.number, task, updates)
        return self._opened[1], self._opened[2]

    def _read(self, path: Path | None) -> Json:
        if path is not None and self._features[0] != path:
            self._features = (path, json.loads(path.read_text(encoding="utf-8")))
        return None if path is None else self._features[1]


def taken(updates: NDArray[np.float32] | None, row: int, answer: tuple[bool, Reply]) -> Reply:
    """The reply as the client gave it: its update is a view of the matrix, not a copy."""
    put, reply = answer
    return replace(reply, vector=updates[row]) if put and updates is not None else reply


def portions(clients: Sequence[str], workers: int, kind: TaskKind) -> list[list[tuple[int, str]]]:
    """The clients with their numbers, cut into portions that keep `workers` busy to the end: one client each if few.

    Those who evaluate stay in groups of `TOGETHER`, the same ones whatever the number of workers.
    """
    size, together = max(1, len(clients) // (8 * workers)), TOGETHER if kind == "evaluate" else 1
    size = -(-size // together) * together
    numbered = list(enumerate(clients))
    return [numbered[start : start + size] for start in range(0, len(numbered), size)]
