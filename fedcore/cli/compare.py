"""``fedcore compare``: runs side by side as a table or JSON."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table

from fedcore.compare import Row, Target
from fedcore.compare import compare as compare_folder
from fedcore.config import load_config
from fedcore.errors import MissingExtra
from fedcore.privacy.statement import in_one_line

app = typer.Typer(help="Compare runs.", rich_markup_mode=None)


@app.command()
def compare(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="RUN...", help="Names of runs; all if none.")
    ] = None,
    workdir: Annotated[Path, typer.Option("--workdir", help="Folder of the runs.")] = Path("runs"),
    tracking_uri: Annotated[
        str | None, typer.Option("--tracking-uri", help="Read from this MLflow server or database instead.")
    ] = None,
    experiment: Annotated[
        str | None, typer.Option("--experiment", help="MLflow experiment, of the parameters if not given.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target", metavar="METRIC=VALUE", help="Say in which round, and when, it was reached."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list, one object a run.")] = False,
) -> None:
    """Show the final metrics, privacy spent and traffic of runs side by side, and each guarantee.

    Example: fedcore compare first second --workdir runs --target accuracy=0.9
    """
    rows = _rows(workdir, runs or [], tracking_uri, experiment, Target.of(target) if target else None)
    if as_json:
        print(json.dumps([row.as_json() for row in rows], ensure_ascii=False))
    else:
        width = None if Console().is_terminal else 240  # a file or a pipe has no edge to keep within
        console = Console(width=width)
        console.print(table(rows, target))
        for line in guarantees(rows):
            console.print(line, markup=False, highlight=False)


def table(rows: list[Row], target: str | None = None) -> Table:
    """A table with a line a run; a metric that a run does not have is left empty.

    ``best`` is the round that was best by the run's own metric; an arrow says that it was the last. Of a
    target it says in which round it was reached, and at what virtual time.
    """
    names = sorted({name for row in rows for name in row.metrics})
    private = any(row.epsilon is not None for row in rows)
    best = any(row.best_round is not None for row in rows)
    numbers = [*names, *(["ε", "δ"] if private else []), "MB up", "MB down", "dropped", "refused"]
    timed = any(row.virtual_s is not None for row in rows)
    reached = ["round", *(["virtual s"] if timed else [])] if target else []
    numbers += [*(["virtual s"] if timed else []), *(f"{target}: {name}" for name in reached)]
    ends = ["rounds", *(["best"] if best else [])]
    shown = Table(Column("run", no_wrap=True), *ends, *numbers, box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        values = [_number(row.metrics.get(name)) for name in names]
        budget = [_number(row.epsilon), _number(row.delta)] if private else []
        traffic = [_number(row.bytes_up / 1e6), _number(row.bytes_down / 1e6)]
        lost = [str(row.dropped), str(row.refused)]
        ended = [_best(row)] if best else []
        clock = [_number(row.virtual_s)] if timed else []
        when = [_number(row.reached_round), _number(row.reached_virtual_s)][: len(reached)]
        shown.add_row(row.run, str(row.rounds), *ended, *values, *budget, *traffic, *lost, *clock, *when)
    return shown


def guarantees(rows: list[Row]) -> list[str]:
    """A line for each run that states its privacy; none where no run has any."""
    if not any(row.epsilon is not None for row in rows):
        return []
    return [f"{row.run}: {in_one_line(row.guarantee)}" for row in rows if row.guarantee]


def _rows(
    workdir: Path, runs: list[str], tracking_uri: str | None, experiment: str | None, target: Target | None
) -> list[Row]:
    if tracking_uri is None:
        return compare_folder(workdir, runs, target)
    try:
        from fedcore.compare import compare_tracked

        return compare_tracked(tracking_uri, experiment or load_config().tracking.experiment, runs, target)
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "tracking") from None


def _best(row: Row) -> str:
    """The round that was best, marked where later ones may be better still."""
    return "" if row.best_round is None else f"{row.best_round}{' ↗' if row.improving else ''}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
