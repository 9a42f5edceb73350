"""A run on the virtual clock as a picture: a row a device, what it did when, and where the rounds end.

Drawn from the schedules alone, written whole or not at all. matplotlib is imported when it is drawn.
"""

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fedcore.blobs import write_whole
from fedcore.clock import Schedule, Visit
from fedcore.errors import BadInput

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_DEVICES, MOST_ROUNDS = 30, 12
_PARTS = ("waits", "downloads", "trains", "uploads")
_COLOURS = dict(zip(_PARTS, ("#dfe5ec", "#7fb3d5", "#1f4e79", "#3b8753"), strict=True))
_LOST = {"late": "#d9822b", "dropped": "#c0392b", "flat": "#7b4fa3"}
_WORDS = {
    "late": "work cut off at the round's end",
    "dropped": "work lost: device dropped out",
    "flat": "work lost: battery flat",
}
_UNITS = (
    (172_800.0, 86_400.0, "days"),
    (7200.0, 3600.0, "hours"),
    (300.0, 60.0, "minutes"),
    (0.0, 1.0, "seconds"),
)


class Piece(NamedTuple):
    """One bar of a device's row: what it shows, from when to when in virtual seconds."""

    shows: str
    begin: float
    end: float


def pieces(visit: Visit, begins: float) -> Iterator[Piece]:
    """What a device did in a round that began at `begins`; work that did not count is one piece, named for why."""
    if visit.begin > begins:
        yield Piece("waits", begins, visit.begin)
    if visit.fate != "counted":
        if visit.until > visit.begin:
            yield Piece(visit.fate, visit.begin, visit.until)
        return
    now = visit.begin
    for shows, seconds in zip(_PARTS[1:], visit.work, strict=True):
        if seconds > 0:
            yield Piece(shows, now, now + seconds)
        now += seconds


def draw(schedules: Sequence[Schedule], path: Path, title: str) -> Path:
    """The file of the picture. Raises `BadInput` where no round was on the virtual clock.

    Shown are the first `MOST_ROUNDS` rounds and the `MOST_DEVICES` devices asked most often in them; the
    title says so where there are more.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    if not schedules:
        raise BadInput("no round of this run was on the virtual clock; set time.mode: virtual")
    shown = list(schedules[:MOST_ROUNDS])
    asked = Counter(visit.client for schedule in shown for visit in schedule.visits)
    devices = sorted(sorted(asked, key=lambda client: (-asked[client], client))[:MOST_DEVICES])
    figure = Figure(figsize=(9.6, 1.7 + 0.2 * max(4, len(devices))), dpi=110, layout="constrained")
    axes = figure.subplots()
    seconds, unit = _unit(shown[-1].ends)
    found = _bars(axes, shown, devices, seconds)
    for number, schedule in enumerate(shown):
        axes.axvline(schedule.ends / seconds, color="#8a8a8a", lw=0.8, ls=":")
        middle = (schedule.begins + schedule.ends) / 2 / seconds
        axes.annotate(
            f"{number + 1}", (middle, 1.0), xycoords=("data", "axes fraction"), ha="center", va="bottom"
        )
    axes.set_yticks(range(len(devices)), devices, fontsize=8)
    axes.set_ylim(len(devices) - 0.4, -0.6)
    axes.set_xlim(0, shown[-1].ends / seconds or 1.0)
    axes.set_xlabel(f"virtual time in {unit}; dotted: a round ends, its number above")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title + _left_out(schedules, shown, asked, devices), loc="left", pad=18)
    labels = {**{part: part for part in _PARTS}, **_WORDS}
    patches = [Patch(color=_colour(shows), label=words) for shows, words in labels.items() if shows in found]
    figure.legend(handles=patches, frameon=False, loc="outside lower center", ncols=4, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_whole(path, buffer.getvalue())
    return path


def _bars(axes: "Axes", shown: Sequence[Schedule], devices: Sequence[str], seconds: float) -> set[str]:
    """Draw each device's row; the kinds of pieces that occur."""
    found, row = set(), {client: place for place, client in enumerate(devices)}
    for schedule in shown:
        for visit in schedule.visits:
            if visit.client not in row:
                continue
            for shows, begin, end in pieces(visit, schedule.begins):
                found.add(shows)
                width, place = (end - begin) / seconds, row[visit.client]
                axes.barh(place, width, left=begin / seconds, height=0.72, color=_colour(shows), lw=0)
            if visit.fate in ("dropped", "flat"):
                axes.plot(visit.until / seconds, row[visit.client], "x", color="#000000", ms=4, mew=1.1)
    return found


def _colour(shows: str) -> str:
    return _COLOURS[shows] if shows in _COLOURS else _LOST[shows]


def _unit(end: float) -> tuple[float, str]:
    """Seconds of the unit in which so long a time reads well, and its name."""
    return next((seconds, name) for least, seconds, name in _UNITS if end >= least)


def _left_out(
    schedules: Sequence[Schedule], shown: Sequence[Schedule], asked: Counter[str], devices: Sequence[str]
) -> str:
    parts = []
    if len(shown) < len(schedules):
        parts.append(f"rounds 1–{len(shown)} of {len(schedules)}")
    if len(devices) < len(asked):
        parts.append(f"{len(devices)} of {len(asked)} devices")
    return f" ({', '.join(parts)})" if parts else ""
