"""An audit as a picture: how far apart the two kinds of canaries are, and the bounds on ε beside each other."""

from typing import TYPE_CHECKING

import numpy as np

from fedcore.redteam.verdict import Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_IN, _OUT, _INK, _ALERT = "#1f4e79", "#d9822b", "#333333", "#c0392b"
_NAMES = {
    "one_run": "one run\n(proven)",
    "f_dp": "one run, f-DP\n(if Gaussian)",
    "gaussian": "Gaussian model\n(no proof)",
}
_WIDEST = 6.0  # times the accountant's ε: where longer bars are cut


def draw(verdict: Verdict) -> "Figure":
    """The picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 4.4), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
    _scores(left, verdict)
    _bounds(right, verdict)
    said = "passed" if verdict.passed else "FAILED: more leaks than the accountant says"
    figure.suptitle(
        f"Privacy audit {said}", x=0.01, ha="left", fontsize=14, color=_INK if verdict.passed else _ALERT
    )
    return figure


def _scores(axes: "Axes", verdict: Verdict) -> None:
    """Both histograms over the same bins, and where the guesses begin."""
    scores, coins = np.array(verdict.scores), np.array(verdict.included)
    out, included = ("opposite", "as drawn") if verdict.opposite else ("left out", "took part")
    bins = np.histogram_bin_edges(scores, bins=min(40, max(12, len(scores) // 12)))
    for side, colour, name in ((~coins, _OUT, out), (coins, _IN, included)):
        label = f"{name} ({side.sum()}), mean {scores[side].mean():.3g}" if side.any() else name
        axes.hist(scores[side], bins=bins.tolist(), color=colour, alpha=0.55, label=label)
    ordered, each = np.sort(scores), verdict.guesses // 2
    low, high = (ordered[each - 1] + ordered[each]) / 2, (ordered[-each - 1] + ordered[-each]) / 2
    for place in (low, high):
        axes.axvline(place, color=_INK, linewidth=1, linestyle=":")
    axes.margins(x=0.01)
    axes.set_ylim(top=axes.get_ylim()[1] * 1.3)
    top = axes.get_ylim()[1] * 0.985
    axes.text(low, top, "guessed out ", ha="right", va="top", fontsize=8, color=_INK)
    axes.text(high, top, " guessed in", ha="left", va="top", fontsize=8, color=_INK)
    axes.set_title(
        f"{verdict.correct} of {verdict.guesses} guesses right, {verdict.rounds} rounds",
        loc="left",
        fontsize=11,
    )
    axes.set_xlabel("score of a canary (clips of the sum along its direction)")
    axes.set_ylabel("canaries")
    axes.legend(
        framealpha=1, edgecolor="none", fontsize=9, loc="upper center", bbox_to_anchor=(0.5, 0.94), ncols=2
    )


def _bounds(axes: "Axes", verdict: Verdict) -> None:
    """Lower bounds as bars, the accountant's as the line that none may cross; long bars are cut."""
    widest = verdict.upper * _WIDEST
    names = list(verdict.lower)
    values = [verdict.lower[name] for name in names]
    colours = [_ALERT if name in verdict.exceeding else _IN for name in names]
    axes.barh(range(len(names)), [min(value, widest) for value in values], color=colours, height=0.5)
    reach = min(widest, max([*values, verdict.upper]))
    axes.set_xlim(0, reach * 1.25)
    for row, value in enumerate(values):
        arrow = " →" if value > widest else ""
        axes.text(min(value, widest) + reach * 0.015, row, f"≥ {value:.3g}{arrow}", va="center", color=_INK)
    axes.axvline(verdict.upper, color=_INK, linewidth=2)
    axes.text(
        verdict.upper, -0.68, f"accountant: ε ≤ {verdict.upper:.3g} ", ha="center", va="bottom", color=_INK
    )
    axes.set_yticks(range(len(names)), [_NAMES[name] for name in names])
    axes.set_ylim(len(names) - 0.45, -0.65)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.8)
    axes.set_xlabel(
        f"ε at δ = {verdict.delta:g}, each lower bound at {100 * verdict.confidence:g} % confidence"
    )
