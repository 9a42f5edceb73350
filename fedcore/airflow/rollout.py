"""The tasks between a promotion and a device that serves it: export, publish signed, wait for health."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator, Context

from fedcore.airflow.hook import DEFAULT_CONNECTION, FedcoreHook
from fedcore.airflow.rounds import Facts
from fedcore.airflow.triggers import DeviceTrigger
from fedcore.errors import BadInput, BundleRefused


class ExportOperator(BaseOperator):
    """Exports the champion to ONNX within the limits of ``edge``; leaves ``{"folder", "version", …}``."""

    def __init__(self, *, fedcore_conn_id: str = DEFAULT_CONNECTION, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.fedcore_conn_id = fedcore_conn_id

    def execute(self, context: Context) -> Facts:
        """Where the bundle lies, which version it is, and what was measured."""
        from fedcore import registry
        from fedcore.adapters.trained import TrainedModel
        from fedcore.edge.export import export
        from fedcore.edge.holdout import held_out

        hook = FedcoreHook(self.fedcore_conn_id)
        place, config = hook.place, hook.config()
        champion = registry.champion(place.registry_uri, config.promotion.model)
        if champion is None:
            raise BadInput(
                f"model {config.promotion.model!r} has no champion; promote a version: fedcore promote"
            )
        folder = edge_folder(place.edge) / "exports" / f"{champion.number}"
        trained = TrainedModel.load(registry.fetch(place.registry_uri, champion, folder / "trained"))
        columns = held_out(hook.sites(), trained.schema, config.seed, config.data.test_fraction)
        report = export(trained, folder / "bundle", columns, config.edge, name=champion.name)
        return {**asdict(report), "folder": str(report.folder), "version": champion.number}


class PublishOperator(BaseOperator):
    """Signs the exported bundle and points devices at it; the same version again changes nothing."""

    template_fields: Sequence[str] = ("bundle", "version")

    def __init__(
        self, *, bundle: str, version: str, fedcore_conn_id: str = DEFAULT_CONNECTION, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.bundle, self.version, self.fedcore_conn_id = bundle, version, fedcore_conn_id

    def execute(self, context: Context) -> Facts:
        """What devices get now."""
        from fedcore.edge.bundle import publish

        hook = FedcoreHook(self.fedcore_conn_id)
        edge, days = edge_folder(hook.place.edge), hook.config().edge.expires_days
        return asdict(
            publish(
                Path(self.bundle),
                edge / "repo",
                edge / "keys",
                int(self.version),
                rollback=True,
                expires_days=days,
            )
        )


class WaitForDeviceOperator(BaseOperator):
    """Waits, without holding a worker, until the device of the connection serves the version.

    Raises `BundleRefused` with the device's own last error when it does not within `within_s`.
    Without a device in the connection there is nothing to wait for.
    """

    template_fields: Sequence[str] = ("version",)

    def __init__(
        self,
        *,
        version: str,
        within_s: float = 120.0,
        fedcore_conn_id: str = DEFAULT_CONNECTION,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.version, self.within_s, self.fedcore_conn_id = version, within_s, fedcore_conn_id

    def execute(self, context: Context) -> Facts:
        """Nothing without a device; otherwise Airflow goes on with `resume`."""
        device = FedcoreHook(self.fedcore_conn_id).place.device
        if device is not None:
            trigger = DeviceTrigger(device, int(self.version), time.time() + self.within_s)
            self.defer(trigger=trigger, method_name="resume")
        return {}

    def resume(self, context: Context, event: Facts) -> Facts:
        """The device's health report."""
        if event["version"] != int(self.version):
            raise BundleRefused(
                f"the device serves version {event['version']}, not {self.version}, after {self.within_s:g} s "
                f"(its last error: {event.get('last_error')}); see its /health"
            )
        return event


def edge_folder(folder: Path | None) -> Path:
    """The folder with keys and signed repository. Raises `BadInput` when the connection names none."""
    if folder is None:
        raise BadInput(
            "Airflow's connection names no edge folder; add 'edge' to its extra and keys with: fedcore edge keys"
        )
    return folder
