"""The audit of a private training: the training itself with canaries in it, and what they prove about its ε.

Plan, round, journal and ledger are the ones that every training runs through, and the population's account is
charged for the audited rounds, because they are releases like any other. An audit that was killed goes on where
it was, and one that was finished is told again without training.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fedcore.config import Config
from fedcore.errors import PlanRefused
from fedcore.privacy.accountant import epsilon
from fedcore.privacy.events import for_training
from fedcore.redteam.course import Asked, Audited, Course, train
from fedcore.redteam.enrol import enrolled
from fedcore.redteam.verdict import Verdict, judged, write
from fedcore.state import Plan
from fedcore.types import RoundRecord


def run_audit(
    config: Config,
    workdir: Path,
    asked: Asked,
    *,
    sites: Path | None = None,
    checks: Path | None = None,
    progress: Callable[[RoundRecord], None] = lambda record: None,
    change: Callable[[Plan], Plan] = lambda plan: plan,
) -> Verdict:
    """Train `config` with canaries among its clients, and say what was told of them beside the accountant's ε.

    `sites` and `checks` are those of `fedcore.coordinator.open_run`; `change` is how tests break a plan. Raises
    `PlanRefused` for settings that clients of our own say nothing about, `BadInput` before anything is
    trained, and `BudgetSpent` where the account cannot pay for a single round.
    """
    refuse_unseen(config)
    each = asked.each
    with enrolled(config, workdir, asked, sites, checks) as (name, audited):
        for course in train(replace(audited, plan=change(audited.plan))):
            progress(course.records[-1])
        return conclude(name, audited, course, each, asked.confidence)


def audit_and_report(
    config: Config,
    workdir: Path,
    asked: Asked,
    *,
    sites: Path | None = None,
    checks: Path | None = None,
    picture: Path | None = None,
    progress: Callable[[RoundRecord], None] = lambda record: None,
) -> tuple[Verdict, dict[str, str]]:
    """The verdict, and the files and the MLflow run that tell of it, whether it passed or not.

    Raises what `run_audit` and `fedcore.redteam.verdict.write` raise, and where tracking is on `ServiceError`.
    """
    verdict = run_audit(config, workdir, asked, sites=sites, checks=checks, progress=progress)
    folder = workdir / "runs" / verdict.run / "report"
    files = write(verdict, folder, picture)
    if config.tracking.enabled:
        from fedcore.redteam.tracked import track_audit

        files["mlflow"] = track_audit(config, verdict, folder, workdir)
    return verdict, files


def conclude(name: str, audited: Audited, course: Course, each: int, confidence: float) -> Verdict:
    """The lower bounds of a course beside what the accountant says of its rounds, by the plan that was claimed."""
    charge = audited.plan.charge
    assert charge is not None, "only private trainings are audited"
    upper = epsilon(
        [for_training(charge.event(number)) for number in range(len(course.records))], charge.delta
    )
    return judged(
        name,
        audited.canaries,
        course.scores,
        course.records,
        len(audited.plan.clients),
        each,
        confidence,
        upper,
        charge.delta,
        opposite=audited.plan.noise is None,
    )


def refuse_unseen(config: Config) -> None:
    """Raises `PlanRefused` unless the promise is one about clients, whoever adds the noise."""
    privacy = config.privacy
    if privacy.mode == "none":
        raise PlanRefused(
            "privacy.mode none promises nothing that could be audited; set privacy.mode: central"
        )
    if privacy.mechanism == "laplace":
        raise PlanRefused(
            "privacy.mechanism laplace is not audited: it clips in the L1 norm, in which a canary's direction of many "
            "coordinates is so short that the audit would pass whatever is wrong; set privacy.mechanism: gaussian"
        )
    if privacy.mode == "record":
        raise PlanRefused(
            "privacy.mode record is not audited: it promises that one record inside a silo hardly shows, and a canary is a "
            "whole client, which that noise does not hide; fedcore privacy membership attacks single records instead"
        )
