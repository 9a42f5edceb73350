"""The tasks after the last round: finish the run, register its model, ask a person, promote."""

from collections.abc import Sequence
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import BaseOperator, Context

from fedcore.airflow.hook import DEFAULT_CONNECTION, FedcoreHook
from fedcore.airflow.links import MlflowRunLink
from fedcore.airflow.rounds import FED_RUN, Facts
from fedcore.errors import BadInput


class FinishOperator(BaseOperator):
    """Writes the trained model, its records and pictures; leaves the model's folder."""

    template_fields: Sequence[str] = ("fed_run",)

    def __init__(
        self, *, fed_run: str = FED_RUN, fedcore_conn_id: str = DEFAULT_CONNECTION, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.fed_run, self.fedcore_conn_id = fed_run, fedcore_conn_id

    def execute(self, context: Context) -> str:
        """The folder of the trained model."""
        from fedcore import coordinator

        return str(coordinator.finish(FedcoreHook(self.fedcore_conn_id).place.workdir, self.fed_run))


class RegisterOperator(FinishOperator):
    """Registers the model as candidate; leaves ``{"model", "version"}``."""

    operator_extra_links = [MlflowRunLink()]

    def execute(self, context: Context) -> Facts:  # type: ignore[override]
        """Name and number of the version, the same however often it is registered."""
        from fedcore import registry

        hook = FedcoreHook(self.fedcore_conn_id)
        settings, run_id = hook.run_settings(self.fed_run), hook.mlflow_run(self.fed_run)
        self.mlflow_url = hook.mlflow_url(self.fed_run)
        if run_id is None:
            raise BadInput(
                f"run {self.fed_run} was not tracked, so there is nothing to register; set tracking.enabled"
            )
        version = registry.register(hook.place.registry_uri, settings.promotion, run_id)
        return {"model": version.name, "version": version.number, "metrics": _numbers(version.tags)}


class ApproveOperator(ApprovalOperator):
    """Waits for a person's yes where ``promotion.approval`` asks for one; a no skips the promotion."""

    template_fields: Sequence[str] = (*ApprovalOperator.template_fields, "fed_run")

    def __init__(
        self, *, fed_run: str = FED_RUN, fedcore_conn_id: str = DEFAULT_CONNECTION, **kwargs: Any
    ) -> None:
        super().__init__(
            subject="Promote the model of run {{ params.run }}?",
            body="Version and metrics: {{ ti.xcom_pull(task_ids='register') }}",
            **kwargs,
        )
        self.fed_run, self.fedcore_conn_id = fed_run, fedcore_conn_id

    def execute(self, context: Context) -> Any:
        """Nothing where nobody needs to be asked."""
        if not FedcoreHook(self.fedcore_conn_id).run_settings(self.fed_run).promotion.approval:
            return None
        return super().execute(context)


class PromoteOperator(BaseOperator):
    """Makes the registered version champion once every gate passes; leaves what the gates saw.

    Raises `GateRefused`, which is final: the task fails with gate, value and limit.
    """

    template_fields: Sequence[str] = ("fed_run", "version")

    def __init__(
        self,
        *,
        version: str,
        fed_run: str = FED_RUN,
        fedcore_conn_id: str = DEFAULT_CONNECTION,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.fed_run, self.version, self.fedcore_conn_id = fed_run, version, fedcore_conn_id

    def execute(self, context: Context) -> Facts:
        """The champion and the gates."""
        from fedcore import registry

        hook = FedcoreHook(self.fedcore_conn_id)
        settings = hook.run_settings(self.fed_run).promotion
        done = registry.promote(hook.place.registry_uri, settings, int(self.version))
        return {"model": done.champion.name, "version": done.champion.number, "gates": dict(done.gates)}


def _numbers(tags: Any) -> dict[str, float]:
    """The tags that are plain numbers: what a person wants to see before saying yes."""
    found = {}
    for name, value in tags.items():
        try:
            found[name] = round(float(value), 6)
        except ValueError:
            continue
    return {name: value for name, value in found.items() if "." not in name}
