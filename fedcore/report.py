"""What a run leaves for people and programs: tracking, records, pictures, the trained model.

Everything is told at least once and every receiver ignores what it has heard, so a run that is
killed while it reports goes on reporting.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedcore.adapters.trained import TrainedModel
from fedcore.blobs import write_whole
from fedcore.clock import Schedule
from fedcore.config import config_tree
from fedcore.errors import MissingExtra
from fedcore.privacy.leaves import counts_stay, disclosed
from fedcore.privacy.statement import statement
from fedcore.session import Session
from fedcore.types import Json, RoundRecord, canonical_json, vector_sha256

if TYPE_CHECKING:
    from fedcore.tracking.mlflow import MlflowRun


@dataclass(frozen=True)
class Report:
    """The sink of a run: its MLflow run, or nothing where tracking is off."""

    mlflow: "MlflowRun | None"

    def __call__(self, record: RoundRecord) -> None:
        """Tell of one round."""
        if self.mlflow:
            self.mlflow(disclosed(record))

    @property
    def run_id(self) -> str | None:
        """The MLflow run's id."""
        return self.mlflow.run_id if self.mlflow else None

    @property
    def url(self) -> str | None:
        """Where a person sees the run."""
        return self.mlflow.url if self.mlflow else None


def open_report(opened: Session) -> Report:
    """The report of a run, made or found again. Raises `ServiceError` if MLflow does not answer."""
    config = opened.config.tracking
    if not config.enabled:
        return Report(None)
    try:
        from fedcore.tracking.mlflow import open_tracking
    except ImportError:
        raise MissingExtra("mlflow", "tracking") from None
    run = open_tracking(
        config,
        opened.store.workdir,
        opened.name,
        config_tree(opened.config),
        {"fed.left_out": ", ".join(sorted(opened.body["left_out"])) or "none"},
        [(site, digest) for site, digest in opened.body["data"].items() if digest],
        key=opened.store.identity,
    )
    if opened.notes.get("mlflow_run") != run.run_id:
        run.describe(
            plan_facts(opened, tracked=True),
            guarantee(opened, None),
            opened.notes["checks"],
        )
        opened.store.note(opened.name, mlflow_run=run.run_id)
    return Report(run)


def finish_report(opened: Session, report: Report) -> None:
    """Write model, records and pictures of a run, and close its tracking. Idempotent."""
    records, trained = opened.records(), opened.trained()
    folder = opened.store.workdir / "runs" / opened.name
    _replace_model(trained, folder / "model")
    lines = "".join(f"{record.canonical()}\n" for record in records)
    write_whole(folder / "records.jsonl", lines.encode())
    write_whole(folder / "plan.json", f"{canonical_json(plan_facts(opened))}\n".encode())
    words = guarantee(opened, records[-1].epsilon if records else None)
    write_whole(folder / "guarantee.txt", f"{words}\n".encode())
    if not records:
        return
    told = [disclosed(record) for record in records]
    _draw(told, folder / "report")
    if opened.plan.charge is None and (schedules := opened.schedules()):
        draw_timeline(schedules, folder / "report" / "timeline.png", opened.name)
    if report.mlflow:
        from fedcore.tracking.points import last_kept

        report.mlflow.describe(plan_facts(opened, tracked=True), words, opened.notes["checks"])
        report.mlflow.log_records(told)
        report.mlflow.log_model(trained, opened.best(records) or last_kept(records) or records[-1])
        report.mlflow.finish()


def draw_timeline(schedules: Sequence[Schedule], picture: Path, run: str) -> Path:
    """The picture of what a run's devices did. Raises `MissingExtra` without the library that draws it."""
    try:
        from fedcore.tracking.timeline import draw

        return draw(schedules, picture, f"{run}: what its devices did")
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "tracking") from None


def publish(model: Path, records: list[RoundRecord], models: Path, reports: Path) -> None:
    """Copy a trained model to `models`, and write ``metrics.json``, ``rounds.csv`` and pictures to `reports`."""
    trained = TrainedModel.load(model)
    _replace_model(trained, models)
    records = [disclosed(record) for record in records]
    reports.mkdir(parents=True, exist_ok=True)
    write_whole(reports / "metrics.json", _pretty(_final(records, vector_sha256(trained.vector))))
    write_whole(reports / "rounds.csv", rounds_table(records).encode())
    _draw(records, reports / "rounds")


def rounds_table(records: list[RoundRecord]) -> str:
    """Records as CSV, one row a round: metrics, ε, clients and bytes (both empty under privacy)."""
    names = sorted({name for record in records for name in record.metrics})
    lines = [",".join(["round", *names, "epsilon", "replied", "bytes_up"])]
    for record in records:
        metrics = [f"{record.metrics[name]:.6f}" if name in record.metrics else "" for name in names]
        spent = "" if record.epsilon is None else f"{record.epsilon:.6f}"
        counts = ["", ""] if record.delta is not None else [str(len(record.replied)), str(record.bytes_up)]
        lines.append(",".join([str(record.round), *metrics, spent, *counts]))
    return "\n".join([*lines, ""])


def _final(records: list[RoundRecord], digest: str) -> Json:
    """Metrics of the model with that SHA-256, which early stopping took from an earlier round, or else the last."""
    judged = [record.metrics for record in records if record.metrics]
    own = [r.metrics for r in records if r.metrics and r.verdict == "keep" and r.model_sha256 == digest]
    judged = own or judged
    facts: dict[str, Json] = dict(judged[-1]) if judged else {}
    facts["rounds"] = len(records)
    if records and records[-1].delta is None:
        facts["bytes_up"] = sum(record.bytes_up for record in records)
    return facts | ({"epsilon": records[-1].epsilon} if records[-1].epsilon is not None else {})


def _pretty(tree: Json) -> bytes:
    return (json.dumps(tree, indent=2, sort_keys=True) + "\n").encode()


def plan_facts(opened: Session, tracked: bool = False) -> Mapping[str, Json]:
    """What was planned, as JSON: who takes part with how many rows, who was left out, all settings.

    It does not say how many rows where no client does, nor where it is `tracked` and the server alone was told.
    """
    body, config = opened.body, opened.config
    silent = counts_stay(config) or (tracked and config.privacy.mode != "none")
    return {
        "run": opened.name,
        "settings": body["config"],
        "clients": dict.fromkeys(body["rows"]) if silent else body["rows"],
        "left_out": body["left_out"],
        "parameters": opened.state(0).model.size,
    }


def guarantee(opened: Session, epsilon: float | None) -> str:
    """The run's guarantee in words, once ε of its population's account is `epsilon`."""
    afforded = opened.affordable if opened.plan.charge else None
    return statement(opened.config, len(opened.plan.clients), epsilon, afforded)


def _replace_model(trained: TrainedModel, folder: Path) -> None:
    """Put the model's folder in place whole: readers see the old one or the new one."""
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    trained.save(fresh)
    if folder.exists():
        for file in fresh.iterdir():
            file.replace(folder / file.name)
        shutil.rmtree(fresh)
    else:
        fresh.replace(folder)


def _draw(records: list[RoundRecord], folder: Path) -> None:
    try:
        from fedcore.tracking.plots import draw

        folder.mkdir(parents=True, exist_ok=True)
        draw(records, folder)
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "tracking") from None
