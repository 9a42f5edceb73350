"""The state machine around `run_round`: open a run, advance it, finish it; resume it anywhere.

The command line runs all rounds at once (`simulate`); Airflow calls `advance` once a task. Both
go through the same journal, so one may go on where the other was killed.
"""

import hashlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedcore.adaptation import without_new
from fedcore.adapters.model import Model, build_model, model_spec
from fedcore.adapters.trained import TrainedModel
from fedcore.config import Config, config_tree
from fedcore.data.described import described
from fedcore.data.prepare import Prepared, prepare, prepared_at
from fedcore.data.schema import Schema
from fedcore.errors import BadInput, BudgetSpent, Diverged, RunConflict
from fedcore.ledger import data_version, ledger_of
from fedcore.local.dp_sgd import refuse_mixed_records
from fedcore.plan import build_plan
from fedcore.privacy.leaves import facts_shown
from fedcore.report import Report, finish_report, open_report
from fedcore.round import STEPS as ROUND_STEPS
from fedcore.session import Session, features_tree, held, schema_sha256, seen, session
from fedcore.simulation import open_fleet
from fedcore.store import Store
from fedcore.types import Json, RoundRecord, canonical_json

STEPS = tuple(ROUND_STEPS)
_NOT_THE_MODEL = frozenset({"run", "checks", "promotion", "edge", "monitor", "tracking", "store"})


@dataclass(frozen=True)
class OpenRun:
    """A run that may be advanced: who takes part, and who was left out and why."""

    name: str
    clients: tuple[str, ...]
    left_out: Mapping[str, str]
    rounds: int


@dataclass(frozen=True)
class Result:
    """A finished training. `metrics` are of the last evaluation, or of the best with early stopping.

    `stopped` says why it ended. `best_round` (from 1) was the best by ``evaluate.metric``, `improving` says
    whether that was the last evaluation; both are None where nobody evaluated.
    """

    run: str
    rounds: int
    metrics: Mapping[str, float]
    epsilon: float | None
    delta: float | None
    bytes_up: int
    bytes_down: int
    model_sha256: str
    model_dir: Path
    mlflow_run: str | None
    tracking_url: str | None
    left_out: Mapping[str, str]
    stopped: str | None
    best_round: int | None = None
    improving: bool | None = None


def open_run(
    config: Config,
    workdir: Path,
    name: str | None = None,
    sites: Path | None = None,
    checks: Path | None = None,
) -> OpenRun:
    """The run of that name, made or found again; idempotent.

    `sites` is a folder with one folder a site (None: ingest, partition and check the data of
    `config` under `workdir`), `checks` the folder in which the check stage left its summary for
    it. Raises `RunConflict` if the name is taken by other settings; `PlanRefused` and
    `BadInput` before the run is entered.
    """
    run = name or config.run.name or "run"
    with Store.at(workdir, config.store.url, config.store.blobs) as store, store.lock(run):
        found = store.run(run)
        if found is None:
            _create(
                store, run, config, prepared_at(sites, checks, config) if sites else prepare(config, workdir)
            )
        else:
            _refuse_other_settings(run, found[0]["config"], config)
            store.note(run, config=config_tree(config), **({"sites": str(sites.resolve())} if sites else {}))
        with session(store, run) as opened:
            return OpenRun(run, opened.plan.clients, opened.body["left_out"], config.run.rounds)


def advance(workdir: Path, run: str, round_number: int, step: str) -> dict[str, Json]:
    """Bring a round of a run up to and with `step`; that step's facts. Idempotent.

    Steps before it that are not committed are done first; the round before it must be complete.
    ``record`` also tells the sinks and adds ``done``, ``stopped``, ``metrics`` and ``epsilon``. Under
    privacy the facts leave out who took part.

    A round that the budget no longer affords is not begun: its facts are those of the end, of the
    round before it. Raises `BudgetSpent` where there is none.
    """
    if step not in STEPS:
        raise BadInput(f"unknown step {step!r}; known: {', '.join(STEPS)}")
    with held(workdir, run) as opened:
        try:
            known = opened.advance(round_number, step)
        except BudgetSpent as spent:
            if round_number == 0:
                raise
            opened.store.note(run, unaffordable_round=round_number)
            return _end(opened.record(round_number - 1), str(spent))
        facts = facts_shown(known.facts(step), opened.plan.charge is not None)
        if step == "record":
            record = opened.record(round_number)
            deliver(opened, record, open_report(opened))
            facts |= _end(record, opened.stopped(round_number + 1))
    return facts


def quorum(workdir: Path, run: str, round_number: int) -> dict[str, Json]:
    """How many of a round's cohort have replied, how many are needed, and whether that is met.

    Nobody is waited for in a round that `advance` found unaffordable.
    """
    with Store.at(workdir) as store:
        asked, found = store.read(run, round_number, "ask"), store.run(run)
        replied = len(store.steps(run, round_number, "reply/"))
    over = found is not None and found[1].get("unaffordable_round") == round_number
    return {
        "replied": replied,
        "needed": asked[0].facts["needed"] if asked else None,
        "met": asked is not None or over,
    }


def finish(workdir: Path, run: str) -> Path:
    """The folder of the run's trained model, written with records, report and tracking; idempotent."""
    with held(workdir, run) as opened:
        finish_report(opened, open_report(opened))
    return model_folder(workdir, run)


def simulate(
    config: Config,
    workdir: Path,
    name: str | None = None,
    sites: Path | None = None,
    checks: Path | None = None,
    progress: Callable[[RoundRecord], None] | None = None,
    announce: Callable[[str], None] | None = None,
) -> Result:
    """Train all rounds in this process, from wherever the run is; the result of the whole run.

    A privacy budget that is spent, or no gain for ``evaluate.patience``, ends the training with the last
    good model. `progress` sees the record of each round, those of an earlier execution too; `announce` is
    told before the first how many rounds the budget affords, where there is one. Raises `Diverged` once
    the last good model is written.
    """
    name = open_run(config, workdir, name, sites, checks).name
    with held(workdir, name) as opened:
        if announce and opened.plan.charge:
            announce(opened.affordable.words)
        report = open_report(opened)
        try:
            for record in train(opened, report):
                if progress:
                    progress(record)
        except Diverged:
            if opened.rounds:
                finish_report(opened, report)
            raise
        finish_report(opened, report)
        return _result(opened, report)


def train(opened: Session, report: Report) -> Iterator[RoundRecord]:
    """Records of all rounds, complete ones first, each told to the report once it is committed.

    Ends early where another run has spent what the next round needs. Raises `BudgetSpent` if that is the first,
    `Diverged` after the last complete round where training left the finite numbers.
    """
    state = opened.state(0)
    while opened.stopped(state.round) is None or state.round < opened.rounds:
        try:
            record, state = opened.play(state)
        except BudgetSpent:
            if state.round == 0:
                raise
            return
        deliver(opened, record, report)
        yield record
    if opened.is_diverged(state.round):
        raise opened.diverged(state.round)


def deliver(opened: Session, record: RoundRecord, report: Report) -> None:
    """Tell the sinks of a committed round, at least once; each ignores what it has heard."""
    if report.mlflow is None:
        return
    delivered = opened.store.journal(opened.name, record.round)
    if delivered.kept("deliver/report") is None:
        report(record)
        delivered.mark("deliver/report")


def model_folder(workdir: Path, run: str) -> Path:
    """Where a run's trained model lies once it is finished."""
    return workdir / "runs" / run / "model"


def experiment_name(config: Config, checks: Path) -> str:
    """A run's name for a DVC experiment: equal for equal settings and data, so that a killed stage resumes."""
    text = canonical_json({"settings": _identity(config), "rounds": config.run.rounds})
    digest = hashlib.sha256(text.encode() + checks.read_bytes()).hexdigest()
    return f"dvc-{digest[:12]}"


def records(workdir: Path, run: str) -> list[RoundRecord]:
    """Records of a run's complete rounds; another process may be at work on the run."""
    with seen(workdir, run) as opened:
        return opened.records()


def current_model(workdir: Path, run: str) -> TrainedModel:
    """The model after the last complete round; another process may be at work on the run."""
    with seen(workdir, run) as opened:
        return opened.trained()


def _create(store: Store, run: str, config: Config, data: Prepared) -> None:
    """Describe the features federatedly, check the plan, and only then enter the run."""
    schema = Schema.load(data.sites)
    data, new = without_new(data, config)
    with closing(open_fleet(config, data.sites, data.passing)) as fleet:
        features, rows, left_out = described(fleet, run, schema, config.data, data.left_out)
    tree = features_tree(features)
    plan = build_plan(config, rows, schema, tree, run)
    model = build_model(model_spec(config.model, schema, features))
    if config.privacy.mode == "record":
        refuse_mixed_records(model)
    _try_out(model)
    digests = {site: data.digests.get(site, "") for site in rows}
    body = {
        "config": _identity(config),
        "features": tree,
        "rows": rows,
        "left_out": left_out,
        "new_clients": list(new),
        "data": digests,
        "data_version": data_version(store, digests, data.digests),
        "identity": secrets.token_hex(16),
        "schema": schema_sha256(schema),
    }
    account = ledger_of(store, config, body)
    if account and plan.charge:
        account.require(run, 0, plan.charge.event(0))
    notes = {"config": config_tree(config), "sites": str(data.sites.resolve()), "checks": data.summary}
    store.create_run(run, body, notes)


def _end(record: RoundRecord, stopped: str | None) -> dict[str, Json]:
    """What the last task of a round is told."""
    facts: dict[str, Json] = {"done": stopped is not None, "stopped": stopped}
    return facts | {"metrics": dict(record.metrics), "epsilon": record.epsilon}


def _try_out(model: Model) -> None:
    """Score one empty row, so that a model that does not fit the rows is named before any client trains."""
    row = np.zeros((1, *model.spec.input_shape), np.float32)
    model.scores(model.init(np.random.default_rng(0)), row)


def _result(opened: Session, report: Report) -> Result:
    records = opened.records()
    last, best, progress = records[-1], opened.best(records), opened.progress(len(records))
    judged = [record for record in records if record.metrics]
    return Result(
        run=opened.name,
        rounds=len(records),
        metrics=best.metrics if best else judged[-1].metrics if judged else {},
        epsilon=last.epsilon,
        delta=last.delta,
        bytes_up=sum(record.bytes_up for record in records),
        bytes_down=sum(record.bytes_down for record in records),
        model_sha256=best.model_sha256 if best else last.model_sha256,
        model_dir=model_folder(opened.store.workdir, opened.name),
        mlflow_run=report.run_id,
        tracking_url=report.url,
        left_out=opened.body["left_out"],
        best_round=progress.round + 1 if progress else None,
        improving=progress.improving if progress else None,
        stopped=opened.stopped(len(records)) or "privacy budget spent when the next round asked for it",
    )


def _identity(config: Config) -> dict[str, Json]:
    """The part of a configuration that decides what the model will be."""
    identity = {key: value for key, value in config_tree(config).items() if key not in _NOT_THE_MODEL}
    correlated = config.privacy.mode == "central" and config.privacy.mechanism in ("tree", "banded")
    if correlated or config.privacy.evaluation == "noised":
        identity["rounds"] = config.run.rounds  # the noise is made, or the last evaluation paid, for so many
    return identity


def _refuse_other_settings(run: str, kept: Mapping[str, Json], config: Config) -> None:
    """Raise `RunConflict` naming the first key that differs."""
    for path, old, new in _differences(kept, _identity(config)):
        raise RunConflict(
            f"run {run} exists with other settings ({path} was {old!r}, now {new!r}); "
            "choose another --run, or the settings it was started with"
        )


def _differences(old: Json, new: Json, path: str = "") -> Iterator[tuple[str, Json, Json]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif old != new:
        yield path, old, new
