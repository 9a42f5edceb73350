"""The connection type ``fedcore``: where a deployment keeps its work, told to every task.

The connection's extra holds paths and addresses, no secrets: `workdir` (needed), `params` (the
parameter file), `sites` (the sites' data), `tracking_uri`, `edge` (keys and signed repository),
`device` (address of a device to wait for).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from airflow.sdk import BaseHook

from fedcore.airflow.links import mlflow_run_url
from fedcore.config import Config, config_from, load_config
from fedcore.errors import BadInput, ServiceError

DEFAULT_CONNECTION = "fedcore_default"


@dataclass(frozen=True)
class Place:
    """What the connection says."""

    workdir: Path
    params: Path | None
    sites: Path | None
    tracking_uri: str | None
    edge: Path | None
    device: str | None

    @property
    def registry_uri(self) -> str:
        """Where runs are tracked and models registered: the server, else the work directory's database."""
        return self.tracking_uri or f"sqlite:///{self.workdir / 'mlflow.db'}"


class FedcoreHook(BaseHook):
    """Reads the connection and the parameter file it names."""

    conn_name_attr = "fedcore_conn_id"
    default_conn_name = DEFAULT_CONNECTION
    conn_type = "fedcore"
    hook_name = "fedcore"

    def __init__(self, fedcore_conn_id: str = DEFAULT_CONNECTION) -> None:
        super().__init__()
        self.fedcore_conn_id = fedcore_conn_id

    @staticmethod
    def get_ui_field_behaviour() -> dict[str, Any]:
        """The form for this connection: the extra is all there is."""
        example = (
            '{"workdir": "…", "params": "…/params.yaml", "sites": "…/data/sites", "tracking_uri": "http://…"}'
        )
        return {
            "hidden_fields": ["host", "port", "login", "password", "schema"],
            "relabeling": {},
            "placeholders": {"extra": example},
        }

    def get_conn(self) -> Place:
        """The place that the connection names."""
        return self.place

    @cached_property
    def place(self) -> Place:
        """What the connection says; raises `BadInput` for one without a work directory."""
        extra = self.get_connection(self.fedcore_conn_id).extra_dejson
        if not extra.get("workdir"):
            raise BadInput(
                f"Airflow's connection {self.fedcore_conn_id} names no workdir; add it to the connection's extra"
            )
        return Place(
            workdir=Path(extra["workdir"]),
            params=_path(extra, "params"),
            sites=_path(extra, "sites"),
            tracking_uri=extra.get("tracking_uri") or None,
            edge=_path(extra, "edge"),
            device=extra.get("device") or None,
        )

    def config(self, preset: str | None = None, overrides: Sequence[str] = ()) -> Config:
        """The parameter file of the connection with preset and overrides, tracked where the connection says."""
        tracking = [f"tracking.uri={self.place.tracking_uri}"] if self.place.tracking_uri else []
        return load_config(self.place.params, preset=preset, overrides=[*tracking, *overrides])

    def sites(self) -> Path:
        """The folder with one folder a site: the connection's, else what training prepared in the work directory."""
        return self.place.sites or self.place.workdir / "data" / "sites"

    def run_settings(self, run: str) -> Config:
        """The configuration that `run` was opened with."""
        return config_from(self._notes(run)["config"])

    def mlflow_run(self, run: str) -> str | None:
        """The id of the MLflow run of `run`, None before its first round or without tracking."""
        found = self._notes(run).get("mlflow_run")
        return None if found is None else str(found)

    def mlflow_url(self, run: str) -> str:
        """The page of the MLflow run of `run`, empty without a server or without tracking."""
        return mlflow_run_url(self.place.tracking_uri, self.mlflow_run(run))

    def deadline(self, run: str, round_number: int) -> float:
        """When a round's time is over, in Unix seconds: ``cohort.deadline_s`` after its cohort was chosen.

        Raises `BadInput` for a round whose cohort is not chosen yet.
        """
        from fedcore.store import Store

        with Store.at(self.place.workdir) as store:
            chosen = store.read(run, round_number, "select")
        if chosen is None:
            raise BadInput(f"round {round_number} of run {run} has no cohort yet; run its task select first")
        return chosen[2] + self.run_settings(run).cohort.deadline_s

    def _notes(self, run: str) -> dict[str, Any]:
        from fedcore.store import Store

        with Store.at(self.place.workdir) as store:
            found = store.run(run)
        if found is None:
            raise BadInput(
                f"there is no run {run!r} in {self.place.workdir}; start it with the DAG federated_training"
            )
        return dict(found[1])

    def test_connection(self) -> tuple[bool, str]:
        """Whether the connection can be used, in words (the button in Airflow's form)."""
        try:
            self.config()
            if not self.place.workdir.is_dir():
                raise ServiceError(f"{self.place.workdir} is not a folder; create it or correct workdir")
        except Exception as error:  # pylint: disable=broad-exception-caught  # the form shows whatever it is
            return False, str(error)
        return True, f"work directory {self.place.workdir}"


def _path(extra: dict[str, Any], key: str) -> Path | None:
    return Path(extra[key]) if extra.get(key) else None
