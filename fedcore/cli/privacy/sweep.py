"""``fedcore privacy sweep``: how good the model is at each ε."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from fedcore.cli.run import AsJson, Override, Params, Preset
from fedcore.config import Config, load_config
from fedcore.errors import BadInput, BudgetSpent
from fedcore.sweep import Asked, Cell, Done, Row, draw, enqueue, fill, noise_for, rows


def sweep(
    preset: Preset = None,
    epsilons: Annotated[str, typer.Option(help="Targets, with commas.")] = "1,2,4,8",
    seeds: Annotated[int, typer.Option(help="How many seeds, from the parameters' own on.")] = 3,
    override: Override = None,
    params: Params = None,
    workdir: Annotated[
        Path, typer.Option("--workdir", help="Where everything the command writes goes.")
    ] = Path("runs/sweep"),
    experiment: Annotated[str | None, typer.Option(help="MLflow experiment; default: sweep-PRESET.")] = None,
    queue: Annotated[
        bool,
        typer.Option("--queue", help="Queue the cells as DVC experiments here instead of training them."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train ε × seeds, and without privacy: table, trade-off picture, an MLflow run a cell.

    The noise for each ε is calibrated. Finished cells are kept: the same command goes on where it
    was interrupted. With privacy.noise seeded every cell is a simulation with an account of its
    own; with system noise all cells draw on the population's account, up to privacy.epsilon, and
    a cell it cannot pay is refused.

    Examples:

        fedcore privacy sweep --preset digits-private -S privacy.noise=seeded

        fedcore privacy sweep --preset digits-private --epsilons 2,8 --seeds 5 --json

        fedcore privacy sweep --epsilons 1,4 --queue && dvc queue start
    """
    config = load_config(params, preset=preset, overrides=override or ())
    name = experiment or f"sweep-{preset or config.data.name}"
    config = replace(config, tracking=replace(config.tracking, experiment=name))
    asked = Asked(config, _numbers(epsilons), seeds)
    cells = asked.cells(noise_for)
    if queue:
        _queued(cells, config, preset, override or (), as_json)
        return
    done = _filled(asked, cells, workdir)
    found = rows(done)
    refused = {one.cell.label: one.refused for one in done if one.refused}
    metric = next((one.metric for one in done if one.metric), "score")
    _show(found, refused, metric)
    if not any(row.epsilon is not None for row in found):
        _raise_refused(done)
    files = {"picture": str(draw(found, workdir / "tradeoff.png", metric, _title(config, seeds)))}
    if config.tracking.enabled:
        from fedcore.tracking.mlflow import address

        files["mlflow"] = address(config.tracking, workdir)
    console = Console(highlight=False)
    for kind, place in files.items():
        console.print(f"{kind:8} {place}", markup=False, soft_wrap=True)
    if as_json:
        facts = {"metric": metric, "rows": [row._asdict() for row in found], "files": files}
        print(json.dumps({**facts, "cells": [asdict(one) for one in done]}, sort_keys=True))


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise BadInput(
            f"--epsilons {text!r} are not numbers with commas; write for example 1,2,4,8"
        ) from None


def _title(config: Config, seeds: int) -> str:
    sizes = f"{config.run.rounds} rounds, δ = {config.privacy.delta:g}, {seeds} seeds"
    return f"{config.data.name}: what privacy costs ({sizes})"


def _queued(
    cells: Sequence[Cell], config: Config, preset: str | None, override: Sequence[str], as_json: bool
) -> None:
    if preset:
        raise BadInput(
            f"--preset {preset} with --queue: DVC reads params.yaml alone; write the preset's keys there or as --set"
        )
    names = enqueue(cells, Path(), config.privacy.mode, override)
    if as_json:
        print(json.dumps({"queued": names, "cells": [asdict(cell) for cell in cells]}, sort_keys=True))
        return
    for name, cell in zip(names, cells, strict=True):
        noise = "" if cell.noise is None else f"noise multiplier {cell.noise:g}"
        print(f"queued {name:20} {noise}".rstrip())
    print("train them with: dvc queue start; then: dvc exp show")


def _filled(asked: Asked, cells: Sequence[Cell], workdir: Path) -> list[Done]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("cells", total=len(cells))
        return fill(
            asked, cells, workdir, lambda one: bar.update(task, advance=1, description=one.cell.label)
        )


def _show(found: Sequence[Row], refused: Mapping[str, str], metric: str) -> None:
    console = Console(highlight=False, width=None if Console().is_terminal else 200)
    table = Table("ε", "noise multiplier", "ε spent", metric, "loss, points", "seeds", box=SIMPLE_HEAD)
    for row in found:
        table.add_row(
            "no privacy" if row.epsilon is None else f"{row.epsilon:g}",
            "" if row.noise is None else f"{row.noise:g}",
            "" if row.spent is None else f"{row.spent:.4f}",
            f"{row.mean:.4f} ± {row.deviation:.4f}",
            "" if row.loss is None or row.epsilon is None else f"{row.loss:.2f}",
            str(row.seeds),
        )
    console.print(table)
    for label, why in refused.items():
        console.print(f"refused  {label}: {why}", markup=False)


def _raise_refused(done: Sequence[Done]) -> None:
    """Raise `BudgetSpent` where no private cell could be paid, for a script to see."""
    private = [one for one in done if one.cell.epsilon is not None]
    spent = max((one.spent or 0.0 for one in private), default=0.0)
    raise BudgetSpent(spent, spent, 0)
