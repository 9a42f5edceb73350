"""The accounts as a picture: ε after each charge, coloured by the run that made it, under the limit."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedcore.blobs import write_whole
from fedcore.errors import BadInput, MissingExtra, StorageError
from fedcore.ledger.summary import AccountSpend

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#9d755d", "#eeca3b")
OTHERS = "#bab0ac"  # runs beyond the eight that spent most


def draw(accounts: Sequence[AccountSpend], file: Path) -> Path:
    """`file` (PNG, SVG or PDF), a panel an account. Raises `MissingExtra` without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("matplotlib", "data") from None
    kind = file.suffix.lstrip(".").lower() or "png"
    if kind not in ("png", "svg", "pdf"):
        raise BadInput(f"a picture cannot be written as {file.name}; name it .png, .svg or .pdf")
    figure = Figure(figsize=(9, 0.4 + 3.6 * len(accounts)), dpi=120, layout="constrained")
    for axes, account in zip(figure.subplots(len(accounts), squeeze=False)[:, 0], accounts, strict=True):
        _panel(axes, account)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, buffer.getvalue())
    except OSError as error:
        raise StorageError(f"cannot write {file}: {error.strerror}; choose another --picture") from None
    return file


def _panel(axes: "Axes", account: AccountSpend) -> None:
    """A bar a charge as high as ε after it: who spent, how fast, and how far the limit is."""
    from matplotlib.ticker import MaxNLocator

    most = sorted(account.runs, key=lambda run: -run.share)[: len(COLOURS)]
    ranked = [run for run in account.runs if run in most]  # colours in the order of the first charge
    colours = {run.run: colour for run, colour in zip(ranked, COLOURS, strict=False)}
    parts = {run.run: run for run in account.runs}
    places: dict[str, tuple[list[int], list[float]]] = {}
    for place, (run, spent, _) in enumerate(account.path, start=1):
        across, up = places.setdefault(run if run in colours else "other runs", ([], []))
        across.append(place)
        up.append(spent)
    for run, (across, up) in places.items():
        part = parts.get(run)
        label = f"{run}: {len(across)} rounds" + (f", {part.share:.0%} of the ε" if part else "")
        axes.bar(across, up, width=1.0, color=colours.get(run, OTHERS), label=label, linewidth=0)
    charges = len(account.path)
    limits = [*(limit for _, _, limit in account.path), account.limit]
    axes.step(
        [place + 0.5 for place in range(charges + 1)], limits, where="post", color="black", linestyle="--"
    )
    axes.annotate(
        f"limit ε = {account.limit:g}",
        (charges + 0.5, account.limit),
        (-2, 4),
        textcoords="offset points",
        ha="right",
        fontsize=9,
    )
    axes.set_xlim(0.5, charges + 0.5)
    axes.set_ylim(0, 1.15 * max(limits))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("charge (one round of one run)")
    axes.set_ylabel(f"ε at δ = {account.terms.delta:g}")
    axes.spines[["top", "right"]].set_visible(False)
    words = (
        f"{account.account}: ε = {account.spent:.3f} of {account.limit:g} spent, {account.terms.unit} level"
    )
    axes.set_title(words, loc="left", fontsize=11)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)
