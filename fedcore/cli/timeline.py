"""``fedcore timeline``: when each device of a run on the virtual clock waited, trained, was late or lost."""

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table

from fedcore.cli.run import AsJson
from fedcore.clock import Schedule
from fedcore.errors import BadInput, PlanRefused


def timeline(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Name of the run.")],
    workdir: Annotated[Path, typer.Option("--workdir", help="Folder of the runs.")] = Path("runs"),
    picture: Annotated[
        Path | None,
        typer.Option("--picture", metavar="FILE", help="Draw a row for each device into this PNG file."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show how the rounds of a run passed on the virtual clock: whose reply counted, who was late or lost.

    Example: fedcore timeline digits --picture timeline.png
    """
    from fedcore.report import draw_timeline
    from fedcore.session import seen

    with seen(workdir, run) as opened:
        if opened.plan.charge is not None:
            raise PlanRefused(
                f"run {run} is private: who took part in its rounds stays with the server, so there is no timeline to show"
            )
        schedules = opened.schedules()
    if not schedules:
        raise BadInput(
            f"run {run} has no round on the virtual clock; start one with -S time.mode=virtual, see docs/time.md"
        )
    if picture:
        draw_timeline(schedules, picture, run)
    if as_json:
        print(json.dumps([schedule.to_json() for schedule in schedules]))
        return
    Console().print(table(schedules))
    if picture:
        print(f"picture      {picture}")


def table(schedules: list[Schedule]) -> Table:
    """A line a round: when it ended, how long it took, what became of those asked."""
    fates = ("counted", "late", "dropped", "flat")
    shown = Table(
        Column("round"), "ends (s)", "took (s)", "asked", *fates, "repeats", box=SIMPLE_HEAD, pad_edge=False
    )
    for number, schedule in enumerate(schedules, start=1):
        counts: Counter[str] = Counter(visit.fate for visit in schedule.visits)
        times = [f"{schedule.ends:.1f}", f"{schedule.ends - schedule.begins:.1f}"]
        became = [str(counts[fate]) for fate in fates]
        shown.add_row(str(number), *times, str(len(schedule.visits)), *became, str(schedule.attempts - 1))
    return shown
