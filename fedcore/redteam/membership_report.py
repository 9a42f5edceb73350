"""What membership inference found: ``membership.json``, ``membership.md`` and the picture ``membership.png``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedcore.redteam.lira import Power
from fedcore.redteam.membership import Membership
from fedcore.redteam.written import write_report
from fedcore.types import Json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = "online"  # the attack that the picture and the tables are about
_COLOURS = ("#b5483a", "#d9a441", "#4c8fbd", "#2a7f62", "#7b5ea7", "#777777")


def as_json(found: Sequence[Membership]) -> Json:
    """All numbers; of the curves only what was asked of them."""
    return [
        {
            "defence": one.defence,
            "promise": one.promise,
            "epsilon": one.shadows.epsilon,
            "delta": one.shadows.delta,
            "models": len(one.shadows.phi),
            "records": one.shadows.phi.shape[1],
            "accuracy": one.shadows.accuracy,
            "train_accuracy": one.shadows.train_accuracy,
            "attacks": {name: _curve(one, name) for name in one.curves},
        }
        for one in found
    ]


def write(found: Sequence[Membership], folder: Path, title: str) -> dict[str, str]:
    """The files by kind. Raises `StorageError`, and `MissingExtra` without matplotlib."""
    return write_report(
        folder, "membership", as_json(found), as_markdown(found, title), lambda: draw(found, title)
    )


def as_markdown(found: Sequence[Membership], title: str) -> str:
    """A table of defences and one of attacks, and how to read them."""
    shadows = found[0].shadows
    lines = [f"# Membership inference: {title}", ""]
    lines += [
        f"{len(shadows.phi)} federated models a defence, {shadows.phi.shape[1]} records, each in about half of the models; "
        "every model attacked by the others.",
        "A blind guess has a true positive rate (TPR) equal to the false positive rate (FPR), and balanced accuracy 0.5.",
        "Intervals are Wilson's at 95 %, as if trials were independent; models share records, so they are too narrow.",
        "",
    ]
    header = ["defence", "ε", "accuracy", "on members", "attack"]
    rates = [power.rate for power in next(iter(found[0].curves.values())).powers]
    header += [f"TPR at FPR {rate:g}" for rate in rates] + ["balanced accuracy", "AUC"]
    lines += ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for one in found:
        for name, curve in one.curves.items():
            cells = [
                one.defence,
                spent(one),
                f"{one.shadows.accuracy:.3f}",
                f"{one.shadows.train_accuracy:.3f}",
            ]
            cells += [name, *(interval(power) for power in curve.powers)]
            cells += [f"{curve.balanced_accuracy:.3f}", f"{curve.auc:.3f}"]
            lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "What each defence promises:", ""]
    lines += [f"- {one.defence}: {one.promise}." for one in found]
    return "\n".join([*lines, ""])


def interval(power: Power) -> str:
    """The rate in per cent and its interval."""
    return f"{100 * power.tpr:.2f} % ({100 * power.low:.2f}–{100 * power.high:.2f})"


def spent(one: Membership) -> str:
    """ε of a model under the defence, in words where there is none."""
    epsilon = one.shadows.epsilon
    if epsilon is None:
        return "no ε"
    return (
        f"{epsilon:,.0f} (δ {one.shadows.delta:g})"
        if epsilon >= 10
        else f"{epsilon:.2f} (δ {one.shadows.delta:g})"
    )


def draw(found: Sequence[Membership], title: str) -> "Figure":
    """The curves on logarithmic axes, and beside them each defence's rates with their intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5.2), dpi=110, layout="constrained")
    figure.suptitle(f"Who was in the training data? {title}", x=0.01, ha="left", fontsize=13)
    curves, bars = figure.subplots(1, 2, width_ratios=(1, 1.15))
    _curves(curves, found)
    _bars(bars, found)
    return figure


def _curves(axes: "Axes", found: Sequence[Membership]) -> None:
    least = 1 / max(power.strangers for one in found for power in one.curves[SHOWN].powers)
    floor = max(least, 1e-5)
    axes.plot([floor, 1], [floor, 1], color="#999", ls="--", lw=1, label="blind guess")
    for colour, one in zip(_COLOURS, found, strict=False):
        curve = one.curves[SHOWN]
        shown = (curve.fpr >= floor) & (curve.tpr > 0)
        axes.plot(curve.fpr[shown], curve.tpr[shown], color=colour, lw=2, label=one.defence)
    for power in found[0].curves[SHOWN].powers:
        axes.axvline(power.rate, color="#ddd", lw=1, zorder=0)
    axes.set(xscale="log", yscale="log", xlim=(floor, 1), ylim=(floor, 1))
    axes.set_aspect("equal")
    axes.set_xlabel("strangers taken for members (FPR)")
    axes.set_ylabel("members found (TPR)")
    axes.set_title("LiRA, online: every threshold", loc="left", fontsize=11)
    axes.legend(loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _bars(axes: "Axes", found: Sequence[Membership]) -> None:
    rates = [power.rate for power in found[0].curves[SHOWN].powers]
    high = 0.8 / len(rates)
    for place, one in enumerate(found):
        colour = _COLOURS[place % len(_COLOURS)]
        for line, power in enumerate(one.curves[SHOWN].powers):
            at = place + (line - (len(rates) - 1) / 2) * high
            share = 100 * power.tpr
            axes.barh(at, share, high * 0.9, color=colour, alpha=1 - 0.45 * line)
            errors = [[share - 100 * power.low], [100 * power.high - share]]
            axes.errorbar(share, at, xerr=errors, color="#333", lw=1, capsize=2)
            axes.plot([100 * power.rate] * 2, [at - high / 2, at + high / 2], color="black", lw=1.5)
            text = f"{share:.2f} %  at FPR {100 * power.rate:g} %"
            axes.annotate(
                text, (100 * power.high, at), (6, 0), textcoords="offset points", va="center", fontsize=9
            )
    names = [f"{one.defence}\n{_claimed(one)}\naccuracy {one.shadows.accuracy:.2f}" for one in found]
    axes.set_yticks(range(len(found)), names)
    axes.invert_yaxis()
    widest = max(100 * power.high for one in found for power in one.curves[SHOWN].powers)
    axes.set_xlim(0, widest * 1.45)
    axes.set_xlabel("members found, per cent; the black mark is a blind guess")
    axes.set_title("At few false alarms", loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)


def _claimed(one: Membership) -> str:
    return spent(one) if one.shadows.epsilon is None else f"ε {spent(one)}"


def _curve(one: Membership, name: str) -> Json:
    curve = one.curves[name]
    return {
        "tpr_at": {
            f"{power.rate:g}": {"tpr": power.tpr, "low": power.low, "high": power.high}
            for power in curve.powers
        },
        "members": curve.powers[0].members,
        "strangers": curve.powers[0].strangers,
        "balanced_accuracy": curve.balanced_accuracy,
        "auc": curve.auc,
        "left_out": curve.left_out,
    }
