"""The picture of fairness: how the model of all serves the clients, worst served first, beside each client's own.

Drawn from quantiles over clients alone: no client's value is in a record.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fedcore.types import RoundRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SCORES = ("accuracy", "auc", "r2", "mse", "loss")  # of these, the first that was measured
_TENTHS = tuple(range(10, 100, 10))
_LINES = {"": ("the model of all", "#9db8d2", "s"), "personal_": ("each client's own model", "#1f4e79", "o")}


def spread_known(records: Sequence[RoundRecord]) -> bool:
    """Whether a round measured what clients have of their own."""
    return _last(records) is not None


def fairness(axes: "Axes", records: Sequence[RoundRecord]) -> None:
    """Each tenth of the clients in the last round that was judged, before and after; the worst tenth's mean as a star."""
    found = _last(records)
    assert found is not None, "asked only where there is something to draw"
    record, metric = found
    curves = {}
    for prefix, (label, colour, marker) in _LINES.items():
        name = f"{prefix}{metric}"
        curves[prefix] = [record.client_metrics[f"{name}_p{percent}"] for percent in _TENTHS]
        worst = record.client_metrics[f"{name}_worst_decile"]
        axes.plot(
            _TENTHS,
            curves[prefix],
            color=colour,
            marker=marker,
            markersize=4,
            label=f"{label}: {_spread(record, name)}",
        )
        axes.scatter([5], [worst], color=colour, marker="*", s=90, zorder=3)
        axes.annotate(
            f"{worst:.3g}", (5, worst), (7, -4), textcoords="offset points", color=colour, fontsize=8
        )
    axes.fill_between(_TENTHS, curves[""], curves["personal_"], color="#9db8d2", alpha=0.25)
    axes.set_xticks([5, *_TENTHS], ["worst\ntenth", *map(str, _TENTHS)])
    axes.set_xlabel("percentile of clients by their own value")
    axes.set_ylabel(f"{metric} on the client's own held-out rows")
    axes.set_title(f"{record.run}: {metric} over clients after round {record.round + 1}", loc="left")
    axes.legend(frameon=False, loc="best", fontsize=9)


def _spread(record: RoundRecord, name: str) -> str:
    whole = f"{record.metrics[name]:.3g} over all rows, " if name in record.metrics else ""
    width = record.client_metrics[f"{name}_p90"] - record.client_metrics[f"{name}_p10"]
    return f"{whole}p90 - p10 = {width:.2g}"


def _last(records: Sequence[RoundRecord]) -> tuple[RoundRecord, str] | None:
    """The newest round with quantiles before and after, and the metric to show."""
    for record in reversed(records):
        for metric in _SCORES:
            if _whole(record.client_metrics, metric):
                return record, metric
    return None


def _whole(spread: Mapping[str, float], metric: str) -> bool:
    return all(f"{prefix}{metric}_p{percent}" in spread for prefix in _LINES for percent in _TENTHS)
