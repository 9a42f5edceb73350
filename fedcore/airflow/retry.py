"""When a failed task is tried again: broken services and restarts yes, a person's decision no."""

from datetime import timedelta
from typing import Any

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule

# Trying again gives the same answer: what was written must change, or a person must decide.
FINAL = [
    "BadInput",
    "PlanRefused",
    "BudgetSpent",
    "CorruptState",
    "RunConflict",
    "GateRefused",
    "BundleRefused",
    "MissingExtra",
    "AuditFailed",
    "Diverged",
]


def task_defaults() -> dict[str, Any]:
    """`default_args` of every DAG: three more tries half a minute apart, none for what cannot change."""
    final = RetryRule(exception=[f"fedcore.errors.{name}" for name in FINAL], action=RetryAction.FAIL)
    busy = RetryRule(
        exception="fedcore.errors.RunBusy", action=RetryAction.RETRY, retry_delay=timedelta(seconds=5)
    )
    return {
        "retries": 3,
        "retry_delay": timedelta(seconds=30),
        "retry_policy": ExceptionRetryPolicy(rules=[final, busy]),
    }
