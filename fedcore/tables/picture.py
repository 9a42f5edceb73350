"""A table as a picture: what was published and what came out here, each with its deviation."""

import io
from collections.abc import Sequence
from pathlib import Path

from fedcore.blobs import write_whole
from fedcore.tables.summary import Line, shortened
from fedcore.tables.table import Table

_COLOURS = {"published": "#8a8f98", "ours": "#1f4e79"}


def draw(table: Table, found: Sequence[Line], path: Path) -> Path:
    """The file of the picture, written whole: one panel a column, one pair of bars with errors a row."""
    from matplotlib.figure import Figure

    columns = list(dict.fromkeys(line.column for line in found))
    tallest = max(sum(line.column == column for line in found) for column in columns)
    figure = Figure(
        figsize=(max(7.6, 4.2 * len(columns)), 1.6 + 0.46 * tallest), dpi=120, layout="constrained"
    )
    panels = figure.subplots(1, len(columns), squeeze=False)[0]
    for axes, column in zip(panels, columns, strict=True):
        _panel(axes, [line for line in found if line.column == column])
        axes.set_title(column, loc="left", fontsize=10)
        axes.set_xlabel(table.metric + (", %" if table.scale > 1 else ""))
    panels[-1].legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    short = sorted({words for line in found if (words := shortened(line))})
    figure.suptitle(table.title + (f" ({', '.join(short)})" if short else ""), x=0.01, ha="left", fontsize=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, buffer.getvalue())
    return path


def _panel(axes, found: Sequence[Line]) -> None:  # type: ignore[no-untyped-def]
    places = range(len(found))
    theirs = [(at, line.published) for at, line in enumerate(found) if line.published is not None]
    axes.errorbar(
        [published.mean for _, published in theirs],
        [at - 0.14 for at, _ in theirs],
        xerr=[published.deviation or 0.0 for _, published in theirs],
        fmt="s",
        capsize=3,
        color=_COLOURS["published"],
        label="published",
    )
    axes.errorbar(
        [line.mean for line in found],
        [at + 0.14 for at in places],
        xerr=[line.deviation for line in found],
        fmt="o",
        capsize=3,
        color=_COLOURS["ours"],
        label="ours",
    )
    axes.set_yticks(list(places), [line.row for line in found])
    axes.invert_yaxis()
    axes.margins(x=0.08, y=0.08)
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
