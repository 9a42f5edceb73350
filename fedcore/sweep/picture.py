"""The trade-off as a picture: the score over ε, and the line that no privacy reaches."""

import io
from collections.abc import Sequence
from pathlib import Path

from fedcore.blobs import write_whole
from fedcore.errors import BadInput
from fedcore.sweep.summary import Row


def draw(found: Sequence[Row], path: Path, metric: str, title: str) -> Path:
    """The file of the picture, written whole. Raises `BadInput` where no private cell has a score."""
    from matplotlib.figure import Figure

    private = [row for row in found if row.epsilon is not None]
    places = [row.epsilon for row in found if row.epsilon is not None]
    if not private:
        raise BadInput("no private cell has a score, so there is nothing to draw; see why each was refused")
    figure = Figure(figsize=(7.2, 4.4), dpi=130, layout="constrained")
    axes = figure.subplots()
    for row in found:
        if row.epsilon is None:
            axes.axhline(row.mean, color="#1f4e79", ls="--", lw=1.2, label="no privacy")
            axes.axhspan(
                row.mean - row.deviation, row.mean + row.deviation, color="#1f4e79", alpha=0.12, lw=0
            )
    axes.errorbar(
        places,
        [row.mean for row in private],
        [row.deviation for row in private],
        marker="o",
        capsize=4,
        color="#b5483a",
        label="private, mean ± deviation over seeds",
    )
    for place, row in zip(places, private, strict=True):
        if row.loss is not None:
            axes.annotate(
                f"−{row.loss:.1f}", (place, row.mean), (0, -16), textcoords="offset points", ha="center"
            )
    axes.set_xscale("log", base=2)
    axes.set_xticks(places, [f"{place:g}" for place in places])
    axes.minorticks_off()
    axes.margins(x=0.08, y=0.16)
    axes.set_xlabel("ε")
    axes.set_ylabel(metric)
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_whole(path, buffer.getvalue())
    return path
