"""A table in MLflow: a run a cell over its seeds; telling twice changes nothing."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fedcore.config import Config, config_tree
from fedcore.errors import MissingExtra
from fedcore.tables.kept import Done
from fedcore.tables.summary import Line, lines
from fedcore.tables.table import Table, cell_config


def track(table: Table, found: Sequence[Done], base: Config, workdir: Path) -> str:
    """Where the runs of experiment ``table-NAME`` are, once each cell has one.

    Raises `ServiceError` or `StorageError` in seconds if MLflow cannot be reached, `MissingExtra`
    if it is not installed.
    """
    try:
        from fedcore.tracking.mlflow import address
    except ImportError:
        raise MissingExtra("mlflow", "tracking") from None
    for line in lines(table, found):
        seeds = [d for d in found if (d.cell.row.name, d.cell.column.name) == (line.row, line.column)]
        _track(table, line, seeds, base, workdir)
    return address(base.tracking, workdir)


def _track(table: Table, line: Line, seeds: Sequence[Done], base: Config, workdir: Path) -> None:
    from mlflow.entities import Metric, RunTag

    from fedcore.tracking.mlflow import answers, open_tracking

    tracking = replace(base.tracking, experiment=f"table-{table.name}")
    tags = {"table": table.name, "row": line.row, "column": line.column, "source": table.source}
    key = "-".join(done.key[:8] for done in seeds)[:120]
    params = config_tree(cell_config(table, seeds[0].cell))
    run = open_tracking(tracking, workdir, f"{line.column} {line.row}", params, tags, [], key)
    at = round(max(done.at for done in seeds) * 1000)
    numbers = {"score": line.mean, "score.deviation": line.deviation, "seconds": line.seconds}
    if line.published is not None:
        numbers |= {"published": line.published.mean, "gap": line.mean - line.published.mean}
    metrics = [Metric(name, value, at, line.rounds - 1) for name, value in numbers.items()]
    for done in seeds:
        name = f"score.seed{done.cell.seed}"
        scores = sorted(done.trained.scores.items())
        metrics += [Metric(name, score * table.scale, at, number) for number, score in scores]
    with answers(run.uri):
        for start in range(0, len(metrics), 1000):
            run.client.log_batch(run.run_id, metrics[start : start + 1000])
        run.client.log_batch(run.run_id, tags=[RunTag("fed.verdict", "finished")])
    run.finish()
