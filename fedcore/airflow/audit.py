"""The task that audits a private training before it begins: canaries against the accountant's ε."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowSkipException

from fedcore.airflow.rounds import Facts
from fedcore.airflow.training import TrainingOperator


class AuditOperator(TrainingOperator):
    """Trains the form's settings with as many canaries as the form asks for; with 0 the task is skipped, not passed.

    The population's account is charged, as for any training. Leaves the bounds and where the report lies. Raises
    `AuditFailed`, which is final: what comes after it never starts. Nobody watches a task, so its `confidence` is
    higher than a person's: a correct pipeline fails at most one audit in a thousand for each bound. `seed` repeats coins.
    """

    template_fields: Sequence[str] = (*TrainingOperator.template_fields, "canaries")

    def __init__(
        self,
        *,
        canaries: str | int = "{{ params.audit }}",
        confidence: float = 0.999,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.canaries, self.confidence, self.seed = canaries, confidence, seed

    def execute(self, context: Context) -> Facts:
        """``{"audited", "passed", "lower", "upper", "delta", "report"}``. Raises `PlanRefused` where nothing is promised."""
        asked = int(self.canaries)
        if not asked:
            raise AirflowSkipException("no audit was asked for (parameter audit: 0)")
        config = self.config()
        from fedcore.redteam.audit import audit_and_report
        from fedcore.redteam.course import Asked

        sites = Path(self.sites) if self.sites else None
        checks = Path(self.checks) if self.checks else None
        workdir = self.hook.place.workdir
        declared = Asked(asked, seed=self.seed, confidence=self.confidence)
        verdict, files = audit_and_report(config, workdir, declared, sites=sites, checks=checks)
        verdict.require()
        return {
            "audited": True,
            "passed": verdict.passed,
            "lower": dict(verdict.lower),
            "upper": verdict.upper,
            "delta": verdict.delta,
            "report": files["report"],
        }
