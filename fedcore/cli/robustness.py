"""``fedcore robustness``: train every rule under every attack, and say which one stands."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Column, Table

from fedcore.cli.counted import counted
from fedcore.cli.run import AsJson, Override, Params, Preset
from fedcore.config import Config, load_config
from fedcore.errors import BadInput
from fedcore.redteam.kept import Record, fill
from fedcore.redteam.matrix import RULES, SETTINGS, Asked
from fedcore.redteam.summary import SHARE, SLOWER, Pace, Panel, Standing, in_pace, panels, ranking
from fedcore.redteam.write import write
from fedcore.types import Json


def robustness(
    preset: Preset = None,
    rules: Annotated[
        str | None, typer.Option(help=f"Rules, mixers before them with +; default: {', '.join(RULES)}.")
    ] = None,
    attacks: Annotated[str | None, typer.Option(help="Attacks; default: all of them.")] = None,
    variants: Annotated[str, typer.Option(help="Of plain, top_k, dp.")] = "plain",
    settings: Annotated[
        str | None, typer.Option(help=f"CLIENTS/LIARS:SCHEME[=ALPHA]; default: {','.join(SETTINGS)}.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many seeds: 1, 2, …")] = 3,
    rounds: Annotated[int | None, typer.Option(help="Rounds of each training; default: run.rounds.")] = None,
    override: Override = None,
    params: Params = None,
    workdir: Annotated[
        Path, typer.Option("--workdir", help="Where everything the command writes goes.")
    ] = Path("runs/robustness"),
    workers: Annotated[int, typer.Option(min=0, max=64, help="Processes; 0 or 1: this one.")] = 0,
    tracking: Annotated[bool, typer.Option(help="An MLflow run a cell.")] = True,
    as_json: AsJson = False,
) -> None:
    """Train rule × attack × variant × setting × seed on real data: table, heat map, MLflow runs.

    Every finished cell is kept: the same command goes on where it was interrupted, and asking for
    more trains only what is new.

    Examples:

        fedcore robustness --preset digits

        fedcore robustness --preset digits --rules mean,nnm+trimmed_mean --attacks sign_flip,optimal_ipm --seeds 1

        fedcore robustness --preset digits --settings 25/5:dirichlet --variants plain,top_k,dp --workers 2
    """
    config = load_config(params, preset=preset, overrides=override or ())
    if rounds is not None and rounds < 1:
        raise BadInput(f"rounds must be 1 or more, got {rounds}; leave the option out for run.rounds")
    config = replace(config, run=replace(config.run, rounds=rounds or config.run.rounds))
    asked = _asked(config, rules, attacks, variants, settings, seeds)
    with counted() as bar:
        records = _filled(asked, workdir, workers, bar)
        files = write(records, workdir, asked.title)
        if tracking and config.tracking.enabled:
            files["mlflow"] = _tracked(config, records, workdir, preset, bar)
    found = panels(records)
    _show(found, ranking(found), files, in_pace(records))
    if as_json:
        print(json.dumps({"files": files, **_facts(records, found)}, sort_keys=True))


def _asked(
    config: Config, rules: str | None, attacks: str | None, variants: str, settings: str | None, seeds: int
) -> Asked:
    given = {"rules": rules, "attacks": attacks, "variants": variants, "settings": settings}
    sides = {name: _list(text) for name, text in given.items() if text is not None}
    return Asked(config, seeds=seeds, **sides)


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _filled(asked: Asked, workdir: Path, workers: int, bar: Progress) -> list[Record]:
    task = bar.add_task("data", total=len(asked.cells()))

    def heard(record: Record) -> None:
        cell = record.cell
        bar.update(task, advance=1, description=f"{cell.setting} {cell.variant} {cell.rule} {cell.attack}")

    return fill(asked, workdir, workers, heard)


def _tracked(
    config: Config, records: Sequence[Record], workdir: Path, preset: str | None, bar: Progress
) -> str:
    from fedcore.redteam.tracked import track

    task = bar.add_task(
        "MLflow", total=len({replace(r.cell, seed=1) for r in records if r.score is not None})
    )
    experiment = f"robustness-{preset or config.data.name}"
    return track(config, records, workdir, experiment, lambda name: bar.update(task, advance=1))


def _show(
    found: Sequence[Panel], standings: Sequence[Standing], files: dict[str, str], paces: Sequence[Pace]
) -> None:
    console = Console(highlight=False, width=None if Console().is_terminal else 200)
    for panel in found:
        for name, why in panel.skipped.items():
            console.print(f"skipped  {panel.setting} {panel.variant} {name}: {why}", markup=False)
    table = Table(
        Column("rule", no_wrap=True),
        "worst case",
        "mean",
        "no attack",
        "backdoor works",
        "panels",
        Column("rounds refused under", overflow="fold"),
        box=SIMPLE_HEAD,
    )
    for standing in standings:
        shares = (standing.worst, standing.mean, standing.honest, standing.implanted)
        numbers = ("" if share is None else f"{100 * share:.1f}" for share in shares)
        table.add_row(standing.rule, *numbers, str(standing.panels), ", ".join(standing.refused))
    console.print(table)
    if paces:
        share = f"{100 * SHARE:.0f} % of the honest mean's score after at most {SLOWER} × its rounds"
        console.print(f"attacks under which the rule reached {share}")
        console.print(_pace_table(standings, paces))
    for name, place in files.items():
        console.print(f"{name:8} {place}", markup=False, soft_wrap=True)


def _pace_table(standings: Sequence[Standing], paces: Sequence[Pace]) -> Table:
    """Under how many attacks each rule kept the honest mean's pace, by setting."""
    settings = list(dict.fromkeys(pace.setting for pace in paces))
    table = Table(Column("rule", no_wrap=True), *settings, box=SIMPLE_HEAD)
    given = {(pace.rule, pace.setting): f"{pace.within} of {pace.attacks}" for pace in paces}
    for standing in standings:
        table.add_row(standing.rule, *(given.get((standing.rule, setting), "") for setting in settings))
    return table


def _facts(records: Sequence[Record], found: Sequence[Panel]) -> dict[str, Json]:
    return {"cells": len(records), "ranking": [standing._asdict() for standing in ranking(found)]}


def add_to(app: typer.Typer) -> None:
    """Add this room's command."""
    app.command()(robustness)
