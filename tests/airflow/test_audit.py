"""The audit as a task: skipped unless asked for, bounds when it passes, a final failure when it does not."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fedcore.config import load_config
from fedcore.errors import AuditFailed, PlanRefused

airflow = pytest.importorskip("airflow")
from airflow.sdk.definitions.retry_policy import RetryAction  # noqa: E402
from airflow.sdk.exceptions import AirflowSkipException  # noqa: E402

from fedcore.airflow.audit import AuditOperator  # noqa: E402
from fedcore.airflow.retry import task_defaults  # noqa: E402
from fedcore.redteam.audit import run_audit  # noqa: E402
from fedcore.redteam.course import Asked  # noqa: E402

PRIVATE = [
    "data.partition.clients=4",
    "data.partition.scheme=iid",
    "model.name=logistic",
    "model.hidden=[]",
    "local.epochs=1",
    "combine.weights=equal",
    "cohort.sampling=all",
    "privacy.mode=central",
    "privacy.max_noise_ratio=1e6",
    "privacy.noise=seeded",
    "privacy.noise_multiplier=4",
    "privacy.clip=0.5",
    "privacy.delta=0.001",
    "run.rounds=6",
    "tracking.enabled=false",
]


def task(canaries, *settings):
    facts = {"preset": "digits", "settings": json.dumps([*PRIVATE, *settings]), "sites": "", "checks": ""}
    return AuditOperator(task_id="audit", canaries=canaries, seed=1, **facts)


def test_it_is_skipped_unless_it_is_asked_for_and_refused_without_privacy(workdir, connect):
    connect(workdir)
    with pytest.raises(AirflowSkipException, match="no audit was asked for"):
        task("0").execute({})
    with pytest.raises(PlanRefused, match="privacy.mode none promises nothing"):
        task("20", "privacy.mode=none").execute({})
    assert not (workdir / "journal.db").exists()


def test_it_leaves_the_bounds_and_the_report(workdir, connect):
    connect(workdir)
    facts = task("20").execute({})
    assert facts["passed"] is True
    assert set(facts["lower"]) == {"one_run", "f_dp", "gaussian"}
    assert facts["report"].endswith("audit.md")
    json.dumps(facts, allow_nan=False)
    assert task("20").execute({}) == facts, "a task that is tried again trains nothing"


def test_a_failed_audit_fails_the_task_for_good(workdir, connect, root):
    """The audited rounds were trained without noise; the task that finds them in the journal judges them."""
    connect(workdir)
    config = load_config(root / "params.yaml", preset="digits", overrides=PRIVATE)
    run_audit(
        config,
        workdir,
        Asked(100, seed=1, confidence=0.999),
        change=lambda plan: replace(plan, noise=replace(plan.noise, normal=lambda number: np.zeros)),
    )
    with pytest.raises(AuditFailed, match="the training leaks") as failed:
        task("100").execute({})
    assert task_defaults()["retry_policy"].evaluate(failed.value, 1, 3).action is RetryAction.FAIL
