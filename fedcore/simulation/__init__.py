"""Fleets of simulated clients: one after another, on threads, in processes, in Ray's actors, or in one computation."""

import os
from pathlib import Path
from typing import TypeAlias

from fedcore.config import Config
from fedcore.errors import BadConfig
from fedcore.simulation.batched import BatchedFleet
from fedcore.simulation.memory import Memory
from fedcore.simulation.ray import RayFleet
from fedcore.simulation.serial import SerialFleet
from fedcore.simulation.threads import ThreadFleet
from fedcore.simulation.vectorised import SoftmaxFleet
from fedcore.simulation.workers import WorkerFleet

__all__ = [
    "BatchedFleet",
    "Memory",
    "RayFleet",
    "SerialFleet",
    "SoftmaxFleet",
    "ThreadFleet",
    "WorkerFleet",
    "open_fleet",
]

Opened: TypeAlias = SerialFleet | ThreadFleet | WorkerFleet | RayFleet | BatchedFleet
_MANY: dict[str, type[ThreadFleet] | type[WorkerFleet] | type[RayFleet]] = {
    "threads": ThreadFleet,
    "workers": WorkerFleet,
    "ray": RayFleet,
}  # those of so many workers


def open_fleet(config: Config, sites: Path, clients: tuple[str, ...], keep: Path | None = None) -> Opened:
    """The fleet that ``run.engine`` asks for; close it after use. Clients keep what is theirs alone in `keep`."""
    engine = config.run.engine or ("workers" if config.run.workers else "serial")
    if engine == "batched":
        return BatchedFleet(sites, clients, config, keep)
    if config.run.device != "cpu":
        raise BadConfig(
            "run.device", config.run.device, f"is not used by engine {engine}; set run.engine: batched"
        )
    if engine == "serial":
        return SerialFleet(sites, clients, config, keep)
    workers = config.run.workers or len(os.sched_getaffinity(0))
    return _MANY[engine](sites, clients, config, workers, keep)
