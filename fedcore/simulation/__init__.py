"""Fleets of simulated clients on this machine: one after another, in worker processes, or all in one computation."""

from pathlib import Path

from fedcore.config import Config
from fedcore.simulation.memory import Memory
from fedcore.simulation.serial import SerialFleet
from fedcore.simulation.vectorised import SoftmaxFleet
from fedcore.simulation.workers import WorkerFleet

__all__ = ["Memory", "SerialFleet", "SoftmaxFleet", "WorkerFleet", "open_fleet"]


def open_fleet(
    config: Config, sites: Path, clients: tuple[str, ...], keep: Path | None = None
) -> SerialFleet | WorkerFleet:
    """The fleet that ``run.workers`` asks for; close it after use. Clients keep what is theirs alone in `keep`."""
    if config.run.workers:
        return WorkerFleet(sites, clients, config, config.run.workers, keep)
    return SerialFleet(sites, clients, config, keep)
