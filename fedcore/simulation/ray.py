"""Clients in Ray's actors, on this machine or on several: the same bytes as `SerialFleet`.

The model goes once a round into Ray's object store, which each machine maps; updates come back through it. Machines
must see `sites`, and what clients keep, under the same path.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from fedcore.config import Config
from fedcore.errors import MissingExtra, ServiceError
from fedcore.one_thread import one_thread
from fedcore.simulation.desk import Desk
from fedcore.simulation.parcels import portions
from fedcore.types import Reply, Task

_DEATHS = 3  # of actors over one question


class RayFleet:
    """Clients over the folders of `sites`, answered for by `workers` actors: see `fedcore.types.Fleet`.

    Joins the cluster that RAY_ADDRESS names, or starts one of this machine alone. Raises `MissingExtra`.
    """

    def __init__(
        self, sites: Path, clients: tuple[str, ...], config: Config, workers: int, keep: Path | None = None
    ) -> None:
        try:
            import ray
        except ImportError:
            raise MissingExtra("ray", "ray") from None
        self.clients: Sequence[str] = tuple(sorted(clients))
        self._ray: Any = ray
        self._given, self._workers = (sites, config, keep), workers
        self._actors: list[Any] = []
        self._began = False

    def ask(self, task: Task, clients: Sequence[str]) -> Iterator[Reply]:
        """Replies as they are ready. Raises `ServiceError` where actors are lost again and again."""
        actors, ray = self._started(), self._ray
        shared = ray.put(task)
        idle = list(range(len(actors)))
        todo = [[client for _, client in portion] for portion in portions(clients, self._workers, task.kind)][
            ::-1
        ]
        busy: dict[Any, tuple[int, list[str]]] = {}
        deaths = 0
        while todo or busy:
            while todo and idle:
                place, portion = idle.pop(), todo.pop()
                busy[actors[place].answers.remote(shared, portion)] = (place, portion)
            done = ray.wait(list(busy))[0][0]
            place, portion = busy.pop(done)
            idle.append(place)
            try:
                yield from ray.get(done)
            except ray.exceptions.RayActorError:
                deaths += 1
                if deaths == _DEATHS:
                    raise ServiceError(
                        f"{_DEATHS} times a Ray actor was lost in one round (out of memory?), waiting for "
                        f"{', '.join(portion[:3])}; use fewer run.workers, and run again to go on from here"
                    ) from None
                actors[place] = self._actor()
                todo.append(portion)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None

    def close(self) -> None:
        """End the actors, and the cluster if it was started here."""
        for actor in self._actors:
            self._ray.kill(actor)
        if self._began:
            self._ray.shutdown()
        self._actors, self._began = [], False

    def _started(self) -> list[Any]:
        if not self._ray.is_initialized():
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            at = os.environ.get("RAY_ADDRESS")
            own: dict[str, Any] = {"num_cpus": self._workers, "include_dashboard": False}
            self._ray.init(address=at, log_to_driver=False, logging_level="ERROR", **({} if at else own))
            self._began = True
        if not self._actors:
            self._actors = [self._actor() for _ in range(self._workers)]
        return self._actors

    def _actor(self) -> Any:
        return self._ray.remote(_Actor).options(num_cpus=1).remote(*self._given)


class _Actor:
    """A process of Ray's that answers for clients."""

    def __init__(self, sites: Path, config: Config, keep: Path | None) -> None:
        self._desk = Desk(sites, config, keep)

    def answers(self, task: Task, clients: Sequence[str]) -> list[Reply]:
        """Replies of the clients, in order."""
        with one_thread():
            return list(self._desk.all(_writable(task), clients))


def _writable(task: Task) -> Task:
    """The task with arrays that torch takes without a warning: what the object store maps is read-only."""
    changed: dict[str, Any] = {}
    for field in fields(task):
        value = getattr(task, field.name)
        if isinstance(value, np.ndarray):
            changed[field.name] = value.copy()
        elif isinstance(value, dict) and any(isinstance(part, np.ndarray) for part in value.values()):
            changed[field.name] = {name: part.copy() for name, part in value.items()}
    return replace(task, **changed)
