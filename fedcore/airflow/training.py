"""The tasks that begin a training: check the sites' data, open the run; or train all of it in one task."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator, Context

from fedcore.airflow.hook import DEFAULT_CONNECTION, FedcoreHook
from fedcore.airflow.links import MlflowRunLink
from fedcore.airflow.rounds import Facts
from fedcore.config import Config


class TrainingOperator(BaseOperator):
    """What the tasks of a training share: the form's preset, settings, sites and checks.

    `settings` is a JSON list of overrides ``KEY=VALUE`` of the parameter file. `sites` is the folder of sites,
    `checks` the summary file of a check that was made already; both may be empty.
    """

    template_fields: Sequence[str] = ("preset", "settings", "fed_run", "sites", "checks")

    def __init__(
        self,
        *,
        fed_run: str = "{{ params.run or run_id }}",
        preset: str = "{{ params.preset or '' }}",
        settings: str = "{{ params.set | tojson }}",
        sites: str = "{{ params.sites or '' }}",
        checks: str = "{{ params.checks or '' }}",
        fedcore_conn_id: str = DEFAULT_CONNECTION,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.fed_run, self.preset, self.settings = fed_run, preset, settings
        self.sites, self.checks, self.fedcore_conn_id = sites, checks, fedcore_conn_id

    @property
    def hook(self) -> FedcoreHook:
        """The connection of this task."""
        return FedcoreHook(self.fedcore_conn_id)

    def config(self) -> Config:
        """The parameter file with the form's preset and settings."""
        return self.hook.config(self.preset or None, json.loads(self.settings))


class CheckSitesOperator(TrainingOperator):
    """Checks every site's data; leaves where the sites and the verdicts are, and who is left out and why.

    Without a folder of sites, the data of the parameter file are ingested and partitioned first.
    """

    def execute(self, context: Context) -> Facts:
        """``{"sites", "checks", "passing", "left_out"}``."""
        from fedcore.data.prepare import prepare, prepared_at

        config, place = self.config(), self.hook.place
        sites = Path(self.sites) if self.sites else place.sites
        out = place.workdir / "data" / "checks"
        if sites is None:
            prepared = prepare(config, place.workdir)
        else:
            prepared = prepared_at(sites, Path(self.checks) if self.checks else None, config, out)
        return {
            "sites": str(prepared.sites),
            "checks": self.checks or str(out / "checks.json"),
            "passing": len(prepared.passing),
            "left_out": dict(prepared.left_out),
        }


class OpenRunOperator(TrainingOperator):
    """Makes the run, or finds it again; leaves ``{"run", "clients", "left_out", "rounds"}``."""

    def execute(self, context: Context) -> Facts:
        """The run's name and who takes part."""
        from fedcore import coordinator

        sites, checks = Path(self.sites), Path(self.checks)
        opened = coordinator.open_run(
            self.config(), self.hook.place.workdir, run_name(self.fed_run), sites, checks
        )
        return {
            "run": opened.name,
            "clients": len(opened.clients),
            "left_out": dict(opened.left_out),
            "rounds": opened.rounds,
        }


class SimulateOperator(TrainingOperator):
    """Trains all rounds in one task; a retry goes on where the last try was killed.

    Leaves the result without its paths.
    """

    operator_extra_links = [MlflowRunLink()]

    def execute(self, context: Context) -> Facts:
        """Rounds, metrics, ε and the model's digest."""
        from fedcore import coordinator

        hook, name = self.hook, run_name(self.fed_run)
        sites = Path(self.sites) if self.sites else hook.place.sites
        checks = Path(self.checks) if self.checks else None
        result = coordinator.simulate(self.config(), hook.place.workdir, name, sites, checks)
        self.mlflow_url = hook.mlflow_url(name)
        return {
            "run": result.run,
            "rounds": result.rounds,
            "metrics": dict(result.metrics),
            "epsilon": result.epsilon,
            "model_sha256": result.model_sha256,
            "left_out": dict(result.left_out),
        }


def run_name(text: str) -> str:
    """A name for a run made from the form's, or from Airflow's run id when that was empty.

    >>> run_name("manual__2026-01-01T00:00:00+00:00")
    'manual__2026-01-01T00-00-00-00-00'
    """
    allowed = "".join(sign if sign.isalnum() or sign in "._-" else "-" for sign in text)
    return allowed.lstrip("._-")[:80] or "run"
