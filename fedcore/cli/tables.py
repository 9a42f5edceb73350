"""``fedcore tables``: train a published table again, and say how far ours is from theirs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as Shown

from fedcore.cli.counted import counted
from fedcore.cli.run import AsJson
from fedcore.config import Config
from fedcore.tables import (
    TABLES,
    Asked,
    Cell,
    Done,
    Line,
    Table,
    Where,
    as_markdown,
    draw,
    fill,
    lines,
    named,
)
from fedcore.tables.summary import HEADER, cells_of, shortened
from fedcore.types import Json


def tables(
    name: Annotated[str | None, typer.Argument(help="Which table; without it they are listed.")] = None,
    seeds: Annotated[int | None, typer.Option(help="How many seeds: 1, 2, …; default: the table's.")] = None,
    rounds: Annotated[
        int | None, typer.Option(help="At most so many rounds of each training; default: the table's.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="All published rounds and seeds.")] = False,
    only: Annotated[
        str | None, typer.Option(help="Algorithms and settings, with commas; default: all.")
    ] = None,
    workdir: Annotated[
        Path, typer.Option("--workdir", help="Where everything the command writes goes.")
    ] = Path("runs/tables"),
    engine: Annotated[
        str | None, typer.Option(help="Where clients train: serial, threads, workers, ray or batched.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=0, max=64, help="Threads, workers or Ray actors; 0: one a core, if asked for.")
    ] = 0,
    device: Annotated[str, typer.Option(help="cpu, or cuda with the batched engine.")] = "cpu",
    tracking: Annotated[bool, typer.Option(help="An MLflow run a cell.")] = True,
    as_json: AsJson = False,
) -> None:
    """Train a published table's algorithms on its data with its settings: ours beside theirs, and a picture.

    Every finished cell is kept, and once a minute where an unfinished one stands: the same command
    goes on where it was interrupted, and asking for more trains only what is new. A table that takes
    hours is shortened unless --full is given, and each line says by how much.

    Examples:

        fedcore tables

        fedcore tables heart

        fedcore tables niid-fmnist --only "IID,FedAvg" --rounds 5 --seeds 1

        fedcore tables niid-fmnist --full --engine batched --device cuda
    """
    if name is None:
        _list(as_json)
        return
    table = named(name)
    chosen = None if only is None else [part.strip() for part in only.split(",") if part.strip()]
    default = table.seeds if full or table.short_seeds is None else table.short_seeds
    limit = rounds if rounds is not None or full else table.short
    asked = Asked(table, default if seeds is None else seeds, limit, chosen or ())
    folder = workdir / table.name
    done = _filled(asked, folder, Where(engine, workers, device))
    found = lines(table, done)
    _show(table, found)
    files = {"picture": str(draw(table, found, folder / f"{table.name}.png"))}
    (folder / f"{table.name}.md").write_text(as_markdown(table, found), encoding="utf-8")
    files["markdown"] = str(folder / f"{table.name}.md")
    if tracking:
        from fedcore.tables.tracked import track

        files["mlflow"] = track(table, done, Config(), workdir)
    console = Console(highlight=False)
    for kind, place in files.items():
        console.print(f"{kind:8} {place}", markup=False, soft_wrap=True)
    if as_json:
        print(json.dumps(_facts(table, found, files), sort_keys=True, ensure_ascii=False))


def _list(as_json: bool) -> None:
    if as_json:
        known = [
            {"name": table.name, "title": table.title, "source": table.source} for table in TABLES.values()
        ]
        print(json.dumps({"tables": known}, sort_keys=True, ensure_ascii=False))
        return
    shown = Shown("table", "what", "published by", box=SIMPLE_HEAD)
    for table in TABLES.values():
        shown.add_row(table.name, table.title, table.source)
    Console(highlight=False, width=None if Console().is_terminal else 200).print(shown)


def _filled(asked: Asked, folder: Path, where: Where) -> list[Done]:
    with counted() as bar:
        cells = bar.add_task("cells", total=len(asked.cells))
        inner = bar.add_task("rounds", total=1)

        def heard(done: Done) -> None:
            bar.update(cells, advance=1)

        def progress(cell: Cell, rounds: int) -> None:
            total = asked.rounds_of(cell)
            bar.update(inner, description=cell.label, completed=rounds, total=total)

        return fill(asked, folder, where, heard, progress)


def _show(table: Table, found: Sequence[Line]) -> None:
    console = Console(highlight=False, width=None if Console().is_terminal else 200)
    console.print(f"{table.title}\npublished: {table.source}", markup=False)
    shown = Shown(*HEADER, box=SIMPLE_HEAD)
    for line in found:
        shown.add_row(*cells_of(table, line))
    console.print(shown)
    short = sorted({words for line in found if (words := shortened(line))})
    if short:
        console.print(f"shortened: {'; '.join(short)} (--full runs all)", markup=False)
    for note in table.notes:
        console.print(note, markup=False)


def _facts(table: Table, found: Sequence[Line], files: dict[str, str]) -> dict[str, Json]:
    rows = [
        {**line._asdict(), "published": None if line.published is None else line.published._asdict()}
        for line in found
    ]
    return {"table": table.name, "source": table.source, "lines": rows, "files": files}


def add_to(app: typer.Typer) -> None:
    """Add this room's command."""
    app.command()(tables)
