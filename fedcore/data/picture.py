"""How the rows and labels are spread over the sites, as a picture for people."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedcore.data.raw import fill_whole, writing
from fedcore.data.schema import Schema
from fedcore.data.shards import as_array, parsed, read_raw, shard_files
from fedcore.data.statistics import as_words
from fedcore.errors import BadData, MissingExtra

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIFTHS = ("lowest fifth", "second", "middle", "fourth", "highest fifth")
NAMED = 40  # more sites than this are drawn without their names
LISTED = 20  # more labels than this have no legend


def draw_partition(sites_root: Path, schema: Schema, picture: Path) -> Path:
    """`picture` (PNG or SVG), once it shows each site's rows (log scale) and what share of them each label has.

    A label that is a number is shown by fifths of all values. A site that cannot be read is
    drawn as such. Raises `MissingExtra` without matplotlib, `StorageError`, `BadData` without sites.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("matplotlib", "data") from None
    names = sorted(folder.name for folder in sites_root.glob("[!.]*") if folder.is_dir())
    if not names:
        raise BadData(str(sites_root), "the folder holds no sites", "run the partition stage")
    counts, kinds = _counts(sites_root, names, schema)
    order = np.argsort(counts.sum(axis=1), kind="stable")
    names, counts = [names[i] for i in order], counts[order]
    figure = Figure(figsize=(10, min(12.0, 1.8 + 0.3 * len(names))), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2, 3))
    _draw_rows(left, names, counts)
    _draw_shares(right, counts, kinds)
    figure.suptitle(f"{schema.dataset}: {counts.sum():,} rows at {len(names)} sites", fontweight="bold")
    if len(kinds) <= LISTED:
        figure.legend(title=schema.label, loc="outside right upper", frameon=False)
    with writing(picture.parent):
        picture.parent.mkdir(parents=True, exist_ok=True)
        kind = picture.suffix.lstrip(".") or "png"
        fill_whole(picture, lambda part: figure.savefig(part, format=kind, dpi=120))
    return picture


def _draw_rows(axes: "Axes", names: list[str], counts: NDArray[np.int64]) -> None:
    rows = counts.sum(axis=1)
    axes.barh(range(len(names)), np.maximum(rows, 1), color="#4c78a8")
    axes.set_xscale("log")
    axes.set_xlim(0.8, max(10, rows.max()) * 6)
    axes.xaxis.set_major_formatter(lambda count, _: f"{count:,.0f}")
    axes.set_xlabel("rows (log scale)")
    axes.set_yticks(range(len(names)) if len(names) <= NAMED else [], names if len(names) <= NAMED else [])
    axes.spines[["top", "right"]].set_visible(False)
    if len(names) <= NAMED:
        for place, count in enumerate(rows):
            axes.text(
                max(count, 1) * 1.15,
                place,
                f"{count:,}" if count else "cannot be read",
                va="center",
                fontsize=8,
            )


def _draw_shares(axes: "Axes", counts: NDArray[np.int64], kinds: tuple[str, ...]) -> None:
    from matplotlib import colormaps

    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    table = colormaps["viridis"] if len(kinds) > 10 else colormaps["tab10"]
    colors = [table(i / max(len(kinds) - 1, 1)) if len(kinds) > 10 else table(i) for i in range(len(kinds))]
    start = np.zeros(len(counts))
    for kind, share, color in zip(kinds, shares.T, colors, strict=True):
        axes.barh(range(len(counts)), share, left=start, color=color, label=kind)
        start += share
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.set_xlabel("share of each label")
    axes.spines[["top", "right"]].set_visible(False)


def _counts(root: Path, names: list[str], schema: Schema) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Rows of each site and label (sites, kinds), and the names of the kinds."""
    labels = [_labels(root / name, schema) for name in names]
    if schema.task == "classification":
        return np.array(
            [[np.sum(words == kind) for kind in schema.classes] for words in labels]
        ), schema.classes
    edges = np.quantile(
        np.concatenate([np.zeros(1) if not any(map(len, labels)) else np.empty(0), *labels]),
        (0.2, 0.4, 0.6, 0.8),
    )
    return np.array([np.bincount(np.searchsorted(edges, v), minlength=5) for v in labels]), FIFTHS


def _labels(folder: Path, schema: Schema) -> NDArray[np.str_] | NDArray[np.float64]:
    """All labels of a site that can be read: words, or numbers for regression."""
    found = []
    try:
        for file in shard_files(folder):
            found.append(as_array(read_raw(file)[schema.label]))
    except (BadData, KeyError):
        found = []
    if schema.task == "classification":
        return np.concatenate([np.empty(0, np.str_), *map(as_words, found)])
    numbers = [values.astype(np.float64) for values in map(parsed, found) if values.dtype.kind in "iufb"]
    return np.concatenate([np.empty(0), *[values[np.isfinite(values)] for values in numbers]])
