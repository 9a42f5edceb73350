"""What gradient inversion rebuilt: ``inversion.json``, ``inversion.md`` and the picture ``inversion.png``."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from fedcore.redteam.inversion import Rebuilt, Scene
from fedcore.redteam.likeness import psnr
from fedcore.redteam.written import write_report
from fedcore.types import Floats, Json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SEEN = 20.0  # dB from which a picture of this size is recognised at sight


def as_json(scenes: Sequence[Scene], found: Sequence[Rebuilt]) -> Json:
    """All numbers, no picture."""
    return {
        "batch": len(scenes[0].pictures),
        "steps": scenes[0].steps,
        "victims": len(scenes),
        "blind_psnr": blind(scenes),
        "rebuilt": [
            {
                "defence": one.defence,
                "attack": one.attack,
                "mse": one.mse,
                "psnr": one.psnr,
                "ssim": one.ssim,
                "labels": one.labels,
                "closer": one.closer,
            }
            for one in found
        ],
    }


def blind(scenes: Sequence[Scene]) -> float:
    """PSNR in dB of guessing the mean picture of other clients: what no update is needed for."""
    return fmean(psnr(scene.blind) for scene in scenes)


def write(scenes: Sequence[Scene], found: Sequence[Rebuilt], folder: Path, title: str) -> dict[str, str]:
    """The files by kind. Raises `StorageError`, and `MissingExtra` without matplotlib."""
    text = as_markdown(scenes, found, title)
    return write_report(folder, "inversion", as_json(scenes, found), text, lambda: draw(scenes, found, title))


def as_markdown(scenes: Sequence[Scene], found: Sequence[Rebuilt], title: str) -> str:
    """One table, and how to read it."""
    lines = [f"# Gradient inversion: {title}", ""]
    lines += [
        f"{_plural(len(scenes), 'client')}, {_plural(len(scenes[0].pictures), 'picture')} and "
        f"{_plural(scenes[0].steps, 'local step')} each; "
        "the attacker is the server and sees one update of the untrained model.",
        f"Guessing the mean picture of other clients has {blind(scenes):.1f} dB; from about {_SEEN:g} dB a picture is "
        "recognised at sight.",
        "",
        "| defence | attack | MSE | PSNR, dB | SSIM | labels |",
        "|---|---|---|---|---|---|",
    ]
    for one in found:
        numbers = f"{one.mse:.4f} | {one.psnr:.1f} | {one.ssim:.3f} | {100 * one.labels:.0f} %"
        lines.append(f"| {one.defence} | {one.attack} | {numbers} |")
    return "\n".join([*lines, ""])


def draw(scenes: Sequence[Scene], found: Sequence[Rebuilt], title: str) -> "Figure":
    """A grid: the first client's pictures at the top, below them each defence's reconstructions, an attack a block."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(one.defence for one in found))
    attacks = list(dict.fromkeys(one.attack for one in found))
    batch = len(scenes[0].pictures)
    wide = 1.9 + len(attacks) * (0.55 * batch + 0.5)
    figure = Figure(figsize=(max(wide, 7.0), 1.3 + 0.74 * (len(names) + 1)), dpi=110, layout="constrained")
    steps = _plural(scenes[0].steps, "local step")
    figure.suptitle(
        f"What the server rebuilds from one update: {title}, batch of {batch}, {steps}\n"
        f"under each strip its mean PSNR over {_plural(len(scenes), 'client')}, dB; a blind guess has {blind(scenes):.1f}",
        x=0.01,
        ha="left",
        fontsize=11,
    )
    grid = figure.subplots(len(names) + 1, len(attacks), squeeze=False)
    for column, attack in enumerate(attacks):
        _strip(grid[0][column], scenes[0].pictures)
        grid[0][column].set_title(attack, fontsize=11, loc="left")
    _named(grid[0][0], "original")
    for one in found:
        axes = grid[names.index(one.defence) + 1][attacks.index(one.attack)]
        _strip(axes, one.pictures)
        colour = "#b5483a" if one.psnr >= _SEEN else "#2a7f62" if one.psnr < blind(scenes) else "#8a6d1d"
        axes.set_xlabel(f"{one.psnr:.1f}", fontsize=9, labelpad=1, color=colour)
    for row, name in enumerate(names, 1):
        _named(grid[row][0], name)
    return figure


def _strip(axes: "Axes", pictures: Floats) -> None:
    """Pictures side by side with a white line between them."""
    line = np.full((pictures.shape[1], 1), np.nan)
    parts = [part for picture in pictures for part in (picture, line)]
    axes.imshow(np.concatenate(parts[:-1], axis=1), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color("#bbb")


def _named(axes: "Axes", name: str) -> None:
    axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=10)


def _plural(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
