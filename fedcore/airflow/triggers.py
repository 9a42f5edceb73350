"""What is waited for without a worker: a round's quorum, the champion alias, a device's version.

Triggers run in Airflow's triggerer. Each asks the library in a thread, so the event loop stays
free, and imports the library only there.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TriggerEvent

from fedcore.errors import ServiceError, StorageError

WATERMARK = "announced"


class QuorumTrigger(BaseTrigger):
    """Fires ``{"replied", "needed", "met"}`` when the quorum is met or `deadline` (Unix seconds) is over."""

    def __init__(
        self, workdir: str, run: str, round_number: int, deadline: float, poll_s: float = 1.0
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.workdir, self.fed_run, self.fed_round = workdir, run, round_number
        self.deadline, self.poll_s = deadline, poll_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments to make the same trigger elsewhere."""
        return f"{__name__}.QuorumTrigger", {
            "workdir": self.workdir,
            "run": self.fed_run,
            "round_number": self.fed_round,
            "deadline": self.deadline,
            "poll_s": self.poll_s,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event."""
        from fedcore import coordinator

        while True:
            facts = await asyncio.to_thread(
                coordinator.quorum, Path(self.workdir), self.fed_run, self.fed_round
            )
            if facts["met"] or time.time() >= self.deadline:
                yield TriggerEvent(facts)  # type: ignore[no-untyped-call]
                return
            await asyncio.sleep(self.poll_s)


class AliasTrigger(BaseEventTrigger):
    """Fires ``{"model", "version"}`` whenever the champion alias of the registered model has moved.

    The version that was announced last is kept in Airflow's store for the asset, so a restarted
    triggerer announces nothing twice. A registry that does not answer is asked again later.
    """

    def __init__(self, fedcore_conn_id: str = "fedcore_default", poll_s: float = 3.0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.fedcore_conn_id, self.poll_s = fedcore_conn_id, poll_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments to make the same trigger elsewhere."""
        return f"{__name__}.AliasTrigger", {"fedcore_conn_id": self.fedcore_conn_id, "poll_s": self.poll_s}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """An event for each move of the alias, for ever."""
        while True:
            model, version = await asyncio.to_thread(champion_of, self.fedcore_conn_id)
            if version is not None and version != await self._announced(model):
                yield TriggerEvent({"model": model, "version": version})  # type: ignore[no-untyped-call]
                await self._announce(model, version)
            await asyncio.sleep(self.poll_s)

    async def _announced(self, model: str) -> str | None:
        assert self.asset_state_store is not None, "the triggerer hands in the asset's store"
        value = await self.asset_state_store.aget(f"{WATERMARK}/{model}")
        return None if value is None else str(value)

    async def _announce(self, model: str, version: str) -> None:
        assert self.asset_state_store is not None
        await self.asset_state_store.aset(f"{WATERMARK}/{model}", version)


class DeviceTrigger(BaseTrigger):
    """Fires the device's health report when it serves `version`, or at `deadline` whatever it serves."""

    def __init__(self, url: str, version: int, deadline: float, poll_s: float = 0.5) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.url, self.version, self.deadline, self.poll_s = url, version, deadline, poll_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments to make the same trigger elsewhere."""
        return f"{__name__}.DeviceTrigger", {
            "url": self.url,
            "version": self.version,
            "deadline": self.deadline,
            "poll_s": self.poll_s,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event."""
        while True:
            report = await asyncio.to_thread(_health, self.url)
            if report.get("version") == self.version or time.time() >= self.deadline:
                yield TriggerEvent(report)  # type: ignore[no-untyped-call]
                return
            await asyncio.sleep(self.poll_s)


def champion_of(connection: str) -> tuple[str, str | None]:
    """The registered model's name and its champion's version, None when there is none or no answer."""
    from fedcore import registry
    from fedcore.airflow.hook import FedcoreHook

    hook = FedcoreHook(connection)
    model = hook.config().promotion.model
    try:
        champion = registry.champion(hook.place.registry_uri, model)
    except (ServiceError, StorageError):
        return model, None
    return model, None if champion is None else str(champion.number)


def _health(url: str) -> dict[str, Any]:
    """The device's report, or its silence as one."""
    from fedcore.edge.health import ask_health

    try:
        return ask_health(url)
    except ServiceError as error:
        return {"version": None, "last_error": str(error)}
