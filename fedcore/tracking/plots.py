"""Pictures of a run that people look at: quality, privacy spent, spread over clients, who took part.

One PNG each, drawn from the records alone, written whole or not at all. matplotlib is
imported when a picture is drawn, and without its global state.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fedcore.errors import BadInput, StorageError
from fedcore.tracking.fairness import fairness, spread_known
from fedcore.types import RoundRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _SOFT, _ALERT = "#1f4e79", "#9db8d2", "#c0392b"
_COLOURS = (_INK, "#d9822b", "#3b8753", "#7b4fa3", "#8a8a8a")
_QUANTILE = re.compile(r"(?P<metric>.+)[._]p(?P<percent>\d+)")
_LOWER_IS_BETTER = ("loss", "mse", "rmse", "mae")
Draw = Callable[["Axes", Sequence[RoundRecord]], None]


def draw(records: Sequence[RoundRecord], folder: Path) -> tuple[Path, ...]:
    """Paths of the pictures that `records` have something for, drawn into `folder`.

    ``quality.png``, ``loss.png``, ``privacy.png``, ``clients.png``, ``fairness.png``, ``cohort.png``. Raises
    `BadInput` without records, `StorageError` where `folder` cannot be written.
    """
    if not records:
        raise BadInput("there are no records to draw; run at least one round")
    counted = [replace(record, round=record.round + 1) for record in records]  # from 1, as people do
    ordered = sorted(counted, key=lambda record: record.round)
    pictures: Mapping[str, tuple[Draw, bool]] = {
        "quality.png": (_quality, bool(_qualities(ordered))),
        "loss.png": (_losses, bool(_loss_names(ordered))),
        "privacy.png": (_privacy, any(record.epsilon is not None for record in ordered)),
        "clients.png": (_spread, _spread_metric(ordered) is not None),
        "fairness.png": (fairness, spread_known(ordered)),
        "cohort.png": (_cohort, any(record.cohort for record in ordered)),
    }
    return tuple(
        _picture(how, ordered, folder / name) for name, (how, has_data) in pictures.items() if has_data
    )


def _picture(how: Draw, records: Sequence[RoundRecord], path: Path) -> Path:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7.2, 4.2), dpi=130, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("round")
    how(axes, records)
    unfinished = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(unfinished, format="png")
        os.replace(unfinished, path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise StorageError(
            f"cannot write {path}: {error.strerror}; free space or choose another folder"
        ) from None
    return path


def _quality(axes: "Axes", records: Sequence[RoundRecord]) -> None:
    _curves(axes, records, _qualities(records))
    axes.set_title(f"{records[0].run}: quality of {_whose(records)}", loc="left")
    axes.set_ylabel("score on held-out rows (higher is better)")


def _losses(axes: "Axes", records: Sequence[RoundRecord]) -> None:
    _curves(axes, records, _loss_names(records))
    axes.set_title(f"{records[0].run}: loss of {_whose(records)}", loc="left")
    axes.set_ylabel("on held-out rows (lower is better)")


def _whose(records: Sequence[RoundRecord]) -> str:
    own = any(name.startswith("personal_") for name in _names(records))
    return "the global model, and of the clients' own" if own else "the global model"


def _curves(axes: "Axes", records: Sequence[RoundRecord], names: Sequence[str]) -> None:
    """One line a metric, its last value written at its end, rounds that were rolled back marked."""
    for name, colour in zip(names, _COLOURS * len(names), strict=False):
        rounds, values = _series(records, name)
        axes.plot(rounds, values, color=colour, marker="o", markersize=3.5, linewidth=1.8, label=name)
        axes.annotate(
            f"{values[-1]:.4g}", (rounds[-1], values[-1]), (6, 0), textcoords="offset points", color=colour
        )
        lost = [(r.round, r.metrics[name]) for r in records if r.verdict == "rollback" and name in r.metrics]
        if lost:
            note = "rolled back" if name == names[0] else None
            axes.scatter(*zip(*lost, strict=True), color=_ALERT, marker="x", zorder=3, label=note)
    axes.margins(x=0.08)
    axes.legend(frameon=False)


def _privacy(axes: "Axes", records: Sequence[RoundRecord]) -> None:
    spent = [(r.round, r.epsilon) for r in records if r.epsilon is not None]
    rounds, epsilons = zip(*spent, strict=True)
    axes.step(rounds, epsilons, where="post", color=_INK, linewidth=1.8, marker="o", markersize=3.5)
    axes.annotate(
        f"ε = {spent[-1][1]:.3g}", spent[-1], (-4, 8), textcoords="offset points", ha="right", color=_INK
    )
    delta = next(r.delta for r in reversed(records) if r.epsilon is not None)
    axes.set_title(f"{records[0].run}: privacy spent (upper bound, δ = {delta:g})", loc="left")
    axes.set_ylabel("ε after the round")
    axes.set_ylim(bottom=0, top=max(epsilons) * 1.18)
    axes.margins(x=0.05)


def _spread(axes: "Axes", records: Sequence[RoundRecord]) -> None:
    """Quantiles over clients: a band from the lowest to the highest, the median as a line."""
    metric, percents = _spread_metric(records) or ("", {})
    ends = sorted(percents)
    have = [r for r in records if all(percents[p] in r.client_metrics for p in ends)]
    rounds = [r.round for r in have]
    low, high = ([r.client_metrics[percents[end]] for r in have] for end in (ends[0], ends[-1]))
    axes.fill_between(
        rounds, low, high, color=_SOFT, alpha=0.55, label=f"{ends[0]}th to {ends[-1]}th percentile"
    )
    if len(rounds) == 1:
        axes.vlines(rounds, low, high, color=_SOFT, linewidth=6)
    if 50 in percents:
        middle = [r.client_metrics[percents[50]] for r in have]
        axes.plot(rounds, middle, color=_INK, marker="o", markersize=3.5, label="median client")
    whole = [r for r in records if metric in r.metrics]
    if whole:
        line = [r.metrics[metric] for r in whole]
        axes.plot(
            [r.round for r in whole], line, color=_COLOURS[1], linestyle="--", label="all rows together"
        )
    axes.set_title(f"{records[0].run}: {metric} over clients", loc="left")
    axes.set_ylabel(f"{metric} on the client's own held-out rows")
    axes.legend(frameon=False)


def _cohort(axes: "Axes", records: Sequence[RoundRecord]) -> None:
    """Clients a round, stacked by what became of them; traffic in the title."""
    rounds, floor = [r.round for r in records], [0] * len(records)
    groups = {"used": _INK, "refused": _ALERT, "dropped": "#bdbdbd"}
    for name, colour in groups.items():
        heights = [_fates(record)[name] for record in records]
        axes.bar(rounds, heights, bottom=floor, color=colour, label=name, width=0.7)
        floor = [below + height for below, height in zip(floor, heights, strict=True)]
    traffic = [sum(r.bytes_up for r in records) / 1e6, sum(r.bytes_down for r in records) / 1e6]
    axes.set_title(
        f"{records[0].run}: clients ({traffic[0]:.3g} MB up, {traffic[1]:.3g} MB down)", loc="left"
    )
    axes.set_ylabel("clients of the cohort")
    axes.set_ylim(top=max(*floor, 1) * 1.2)
    axes.legend(frameon=False, ncols=3, loc="upper right")


def _fates(record: RoundRecord) -> dict[str, int]:
    refused, dropped = len(record.refused), len(record.dropped)
    return {"used": len(record.cohort) - refused - dropped, "refused": refused, "dropped": dropped}


def _series(records: Sequence[RoundRecord], name: str) -> tuple[list[int], list[float]]:
    have = [r for r in records if name in r.metrics]
    return [r.round for r in have], [r.metrics[name] for r in have]


def _names(records: Sequence[RoundRecord]) -> list[str]:
    return sorted({name for record in records for name in record.metrics})


def _qualities(records: Sequence[RoundRecord]) -> list[str]:
    known = _names(records)
    scores = ("auc", "accuracy", "f1", "r2")
    return [name for score in scores for name in (score, f"personal_{score}") if name in known]


def _lower_is_better(metric: str) -> bool:
    return metric.removeprefix("personal_") in _LOWER_IS_BETTER


def _loss_names(records: Sequence[RoundRecord]) -> list[str]:
    return [name for name in _names(records) if _lower_is_better(name)]


def _spread_metric(records: Sequence[RoundRecord]) -> tuple[str, dict[int, str]] | None:
    """The metric whose quantiles over clients are known best (scores first), percent -> name."""
    found: dict[str, dict[int, str]] = {}
    for name in records[-1].client_metrics:
        if match := _QUANTILE.fullmatch(name):
            found.setdefault(match["metric"], {})[int(match["percent"])] = name
    usable = [metric for metric, percents in found.items() if len(percents) >= 2]
    order = sorted(usable, key=lambda metric: (_lower_is_better(metric), metric != "auc", metric))
    return (order[0], found[order[0]]) if order else None
