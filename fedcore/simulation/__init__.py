"""Fleets of simulated clients: one after another, in worker processes, in Ray's actors, or all in one computation."""

import os
from pathlib import Path

from fedcore.config import Config
from fedcore.simulation.memory import Memory
from fedcore.simulation.ray import RayFleet
from fedcore.simulation.serial import SerialFleet
from fedcore.simulation.vectorised import SoftmaxFleet
from fedcore.simulation.workers import WorkerFleet

__all__ = ["Memory", "RayFleet", "SerialFleet", "SoftmaxFleet", "WorkerFleet", "open_fleet"]


def open_fleet(
    config: Config, sites: Path, clients: tuple[str, ...], keep: Path | None = None
) -> SerialFleet | WorkerFleet | RayFleet:
    """The fleet that ``run.engine`` asks for; close it after use. Clients keep what is theirs alone in `keep`."""
    engine = config.run.engine or ("workers" if config.run.workers else "serial")
    if engine == "serial":
        return SerialFleet(sites, clients, config, keep)
    workers = config.run.workers or len(os.sched_getaffinity(0))
    return (WorkerFleet if engine == "workers" else RayFleet)(sites, clients, config, workers, keep)
