"""Ours beside theirs: mean and deviation over seeds of each cell, and how far that is from the published number."""

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from fedcore.tables.kept import Done
from fedcore.tables.table import Part, Published, Table, full_rounds


class Line(NamedTuple):
    """One cell over its seeds, in the table's unit; `gap` is ours minus theirs.

    `reached` says whether ours is within one published deviation or better; it is None where
    nothing was published or its deviation was not given.
    """

    row: str
    column: str
    published: Published | None
    mean: float
    deviation: float
    gap: float | None
    reached: bool | None
    seeds: int
    rounds: int
    of_rounds: int
    seconds: float


def lines(table: Table, found: Sequence[Done]) -> list[Line]:
    """A line for each cell that has a score, in the table's order."""
    cells: dict[tuple[str, str], list[Done]] = {}
    for done in found:
        cells.setdefault((done.cell.row.name, done.cell.column.name), []).append(done)
    return [
        _line(table, row, column, cells[row.name, column.name])
        for column in table.columns
        for row in table.rows
        if (row.name, column.name) in cells
    ]


def _line(table: Table, row: Part, column: Part, seeds: Sequence[Done]) -> Line:
    scores = [done.trained.score * table.scale for done in seeds]
    mean, published = fmean(scores), table.published.get((row.name, column.name))
    gap = None if published is None else mean - published.mean
    return Line(
        row=row.name,
        column=column.name,
        published=published,
        mean=mean,
        deviation=stdev(scores) if len(scores) > 1 else 0.0,
        gap=gap,
        reached=_reached(gap, published, table.lower_is_better),
        seeds=len(seeds),
        rounds=seeds[0].trained.rounds,
        of_rounds=full_rounds(table, row, column),
        seconds=fmean([done.trained.seconds for done in seeds]),
    )


def _reached(gap: float | None, published: Published | None, lower_is_better: bool) -> bool | None:
    if gap is None or published is None or published.deviation is None:
        return None
    return (gap if lower_is_better else -gap) <= published.deviation


def shortened(line: Line) -> str:
    """In words how many of the published rounds were run; empty where all were."""
    return f"{line.rounds} of {line.of_rounds} rounds" if line.rounds < line.of_rounds else ""


def cells_of(table: Table, line: Line) -> tuple[str, ...]:
    """A line as the words that are shown of it, in the order of `HEADER`."""
    digits = 2 if table.scale > 1 else 4
    theirs = "" if line.published is None else f"{line.published.mean:.{digits}f}"
    if line.published is not None and line.published.deviation is not None:
        theirs += f" ± {line.published.deviation:.{digits}f}"
    ours = f"{line.mean:.{digits}f}" + (f" ± {line.deviation:.{digits}f}" if line.seeds > 1 else "")
    gap = "" if line.gap is None else f"{line.gap:+.{digits}f}"
    verdict = {None: "", True: "yes", False: "no"}[line.reached]
    return line.column, line.row, theirs, ours, gap, verdict, str(line.seeds), shortened(line) or "all"


HEADER = ("setting", "algorithm", "published", "ours", "gap", "within ±1", "seeds", "rounds")


def as_markdown(table: Table, found: Sequence[Line]) -> str:
    """The table for a document."""
    rows = [HEADER, tuple("---" for _ in HEADER), *(cells_of(table, line) for line in found)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
