"""The matrix in MLflow, a run a cell, and an audit, a run by itself; telling twice changes nothing."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from statistics import fmean

from fedcore.config import Config, config_tree
from fedcore.errors import MissingExtra
from fedcore.redteam.kept import Record
from fedcore.redteam.matrix import Cell, cell_config, key_of
from fedcore.redteam.verdict import Verdict
from fedcore.types import Json

_AT_ONCE = 1000  # numbers in one batch, as MLflow allows


def track(
    base: Config,
    records: Sequence[Record],
    workdir: Path,
    experiment: str,
    told: Callable[[str], None] = lambda name: None,
) -> str:
    """Where the runs are, once each (setting, variant, rule, attack) has one; seeds are averaged in it.

    Raises `ServiceError` or `StorageError` in seconds if MLflow cannot be reached.
    """
    from fedcore.tracking.mlflow import address

    def together(record: Record) -> tuple[str, ...]:
        cell = record.cell
        return cell.setting, cell.variant, cell.rule, cell.attack

    for names, group in groupby(sorted(records, key=together), key=together):
        trained = [record for record in group if record.score is not None]
        if trained:
            _track_cell(base, trained, workdir, experiment)
            told(" ".join(names))
    return address(base.tracking, workdir)


def _track_cell(base: Config, records: Sequence[Record], workdir: Path, experiment: str) -> None:
    from dataclasses import replace

    from mlflow.entities import Metric, RunTag

    from fedcore.tracking.mlflow import answers, open_tracking

    cell, at = records[0].cell, max(record.at for record in records)
    name = f"{cell.setting} {cell.variant} {cell.rule} {cell.attack}"
    tracking = replace(base.tracking, experiment=experiment)
    key = "-".join(key_of(base, record.cell)[:8] for record in records)
    run = open_tracking(tracking, workdir, name, _params(base, cell), _tags(cell, records), [], key)
    numbers = [Metric(metric, value, round(at * 1000), step) for metric, value, step in _points(records)]
    with answers(run.uri):
        run.client.log_batch(run.run_id, numbers, tags=[RunTag("fed.verdict", "finished")])
    run.finish()


def _params(base: Config, cell: Cell) -> Mapping[str, Json]:
    tree = config_tree(cell_config(base, cell))
    return {name: tree[name] for name in ("data", "model", "local", "combine", "server", "privacy")}


def _tags(cell: Cell, records: Sequence[Record]) -> dict[str, str]:
    seeds = ",".join(str(record.cell.seed) for record in records)
    return {
        "rule": cell.rule,
        "attack": cell.attack,
        "variant": cell.variant,
        "setting": cell.setting,
        "seeds": seeds,
    }


def _points(records: Sequence[Record]) -> list[tuple[str, float, int]]:
    """Name, value and round: the score of each round, and what is known of the whole."""
    curves = [record.numbers["scores"] for record in records]
    last = len(curves[0]) - 1
    found = [("score", fmean(values), number) for number, values in enumerate(zip(*curves, strict=True))]
    found += [(f"score.seed{r.cell.seed}", curve[-1], last) for r, curve in zip(records, curves, strict=True)]
    for name in ("caught", "wronged", "implanted"):
        values = [r.numbers[name] for r in records if r.numbers[name] is not None]
        found += [(name, fmean(values), last)] if values else []
    return [*found, ("stopped", float(sum(r.numbers["stopped"] is not None for r in records)), last)]


def track_audit(config: Config, verdict: Verdict, folder: Path, workdir: Path) -> str:
    """Where the audit's run is: the account's ε round by round, the audited rounds' bounds, the files of `folder`.

    ``epsilon_claimed`` is the accountant's upper bound, ``epsilon_audited`` the proven lower one, with ``.f_dp`` and
    ``.gaussian`` those under a hypothesis. Raises `ServiceError` or `StorageError` in seconds if MLflow cannot be
    reached, `MissingExtra` if it is not installed.
    """
    try:
        from mlflow.entities import Metric, RunTag

        from fedcore.tracking.mlflow import answers, open_tracking
    except ImportError:
        raise MissingExtra("mlflow", "tracking") from None

    tags = {"fed.audit": "passed" if verdict.passed else "failed", "fed.audit.commitment": verdict.commitment}
    asked = {"canaries": verdict.canaries, "guesses": verdict.guesses, "sight": verdict.sight}
    params = {**config_tree(config), "audit": {**asked, "confidence": verdict.confidence}}
    run = open_tracking(config.tracking, workdir, verdict.run, params, tags, [], verdict.commitment[:16])
    last, at = verdict.rounds - 1, round(verdict.at * 1000)
    numbers = [Metric("epsilon", value, at, number) for number, value in enumerate(verdict.spent)]
    found = {
        "delta": verdict.delta,
        "epsilon_claimed": verdict.upper,
        "epsilon_audited": verdict.lower["one_run"],
        **{f"epsilon_audited.{name}": value for name, value in verdict.lower.items() if name != "one_run"},
        **verdict.metrics,
    }
    numbers += [Metric(name, value, at, last) for name, value in found.items()]
    with answers(run.uri):
        for start in range(0, len(numbers), _AT_ONCE):
            run.client.log_batch(run.run_id, numbers[start : start + _AT_ONCE])
        run.client.log_batch(run.run_id, tags=[RunTag(name, value) for name, value in tags.items()])
    run.log_files(folder, "report")
    run.finish()
    return run.url
