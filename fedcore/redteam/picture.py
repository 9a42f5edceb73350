"""The matrix as a heat map: a panel a setting and variant, rules down, attacks across, the worst case last."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedcore.blobs import write_whole
from fedcore.redteam.matrix import NONE
from fedcore.redteam.summary import Panel
from fedcore.types import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(found: Sequence[Panel], path: Path, title: str) -> Path:
    """The file of the heat map, written whole."""
    from matplotlib.figure import Figure

    rules = list(dict.fromkeys(rule for panel in found for rule, _ in panel.scores))
    attacks = list(dict.fromkeys(attack for panel in found for _, attack in panel.scores))
    wide, high = 0.62 * (len(attacks) + 2) + 2.2, 0.42 * len(rules) + 1.9
    columns = 2 if len(found) > 1 else 1
    lines = -(-len(found) // columns)
    figure = Figure(figsize=(wide * columns, high * lines + 0.5), dpi=110, layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=14)
    places = np.atleast_1d(figure.subplots(lines, columns, squeeze=False)).ravel()
    for axes in places[len(found) :]:
        axes.set_visible(False)
    for axes, panel in zip(places, found, strict=False):
        _panel(axes, panel, rules, attacks)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_whole(path, buffer.getvalue())
    return path


def _panel(axes: "Axes", panel: Panel, rules: Sequence[str], attacks: Sequence[str]) -> None:
    """One panel: a number in each cell, an empty one where the rule was skipped; good is green in every column."""
    columns = [*attacks, "worst", "backdoor works"]
    values = _values(panel, rules, attacks)
    good = values.copy()
    good[:, -1] = 1 - good[:, -1]
    axes.imshow(good, cmap="RdYlGn", vmin=0.0, vmax=1.0, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rules)), rules)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for place in (len(attacks) - 0.5, len(attacks) + 0.5, *([0.5] if attacks[0] == NONE else [])):
        axes.axvline(place, color="white", linewidth=4)
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            colour = "white" if abs(good[row, column] - 0.55) > 0.36 else "black"
            axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=9, color=colour)
    for rule, attack in panel.refused:
        where = attacks.index(attack), rules.index(rule)
        axes.text(*where, "refused", ha="center", va="center", fontsize=6, color="black")
    clients, _, rest = panel.setting.partition("/")
    liars, _, spread = rest.partition(":")
    axes.set_title(f"{clients} clients, {liars} of them lie, {spread}; {panel.variant}", loc="left")


def _values(panel: Panel, rules: Sequence[str], attacks: Sequence[str]) -> Floats:
    """Scores (rules, attacks + 2): the worst and how far a backdoor works come last; NaN where there is none."""
    values = np.full((len(rules), len(attacks) + 2), np.nan)
    for row, rule in enumerate(rules):
        for column, attack in enumerate(attacks):
            if (rule, attack) not in panel.refused:
                values[row, column] = panel.scores.get((rule, attack), np.nan)
        values[row, -2] = min(panel.of(rule).values(), default=np.nan)
        values[row, -1] = panel.implanted.get(rule, np.nan)
    return values
