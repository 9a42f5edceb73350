"""``fedcore distill``: a smaller model that learns from a trained run's."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table

from fedcore.cli.counted import counted
from fedcore.cli.run import AsJson, Workdir
from fedcore.distillation import Distillation


def distill(
    run: Annotated[str, typer.Option("--run", help="Name of the trained run: the teacher.")],
    rows: Annotated[
        str,
        typer.Option(
            "--rows", help="Where to teach: a site of the run, or a folder of shards like a site's."
        ),
    ],
    student: Annotated[
        list[str],
        typer.Option("--student", "-S", help="KEY=VALUE of the student, e.g. model.hidden=[8]. Repeatable."),
    ],
    temperature: Annotated[
        float, typer.Option("--temperature", min=0.1, help="How much both models' classes are softened.")
    ] = 4.0,
    label_weight: Annotated[
        float, typer.Option("--label-weight", min=0.0, max=1.0, help="The true labels' share in the loss.")
    ] = 0.5,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Passes over the rows.")] = 30,
    lr: Annotated[float, typer.Option("--lr", min=0.0, help="Learning rate.")] = 0.05,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Rows of a step.")] = 32,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the student; default: runs/RUN/student.")
    ] = None,
    workdir: Workdir = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Teach a smaller model what a run's model knows, and show both beside one taught by labels alone.

    Example:

        fedcore distill --run digits --rows client-000 -S model.hidden=[4]
    """
    from fedcore.adapters.model import Training
    from fedcore.distillation import distil
    from fedcore.local.distill import Lesson
    from fedcore.session import seen

    settings = Training(lr, 0.9, 0.0, epochs, batch_size)
    folder = out or workdir / "runs" / run / "student"
    with seen(workdir, run) as opened, counted() as bar:
        shown = bar.add_task("epochs", total=2 * epochs)
        lesson = Lesson(temperature, label_weight)
        found = distil(opened, rows, student, settings, lesson, folder, lambda: bar.update(shown, advance=1))
    if as_json:
        print(json.dumps(found.as_json(), sort_keys=True))
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"taught on {found.rows} rows of {found.place}, judged on {found.held_out} of its held-out rows"
    )
    console.print(table(found))
    console.print(f"student      {found.folder}", markup=False)


def table(found: Distillation) -> Table:
    """Parameters, size and metrics of teacher, student and the model that labels alone taught."""
    names = [name for name in sorted(found.teacher.metrics) if name != "rows"]
    shown = Table(Column("model", no_wrap=True), "parameters", "kB", *names, box=SIMPLE_HEAD, pad_edge=False)
    pupils = {"teacher": found.teacher, "student": found.student, "labels alone": found.labels}
    for label, one in pupils.items():
        values = [f"{one.metrics[name]:.4f}" if name in one.metrics else "" for name in names]
        shown.add_row(label, f"{one.parameters:,}", f"{one.bytes / 1000:.1f}", *values)
    return shown
