"""``fedcore privacy report``: everything that leaves a site under a configuration."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table

from fedcore.cli.run import AsJson, Override, Params, Preset
from fedcore.config import load_config
from fedcore.privacy.leaves import Leaving, leaves


def report(
    preset: Preset = None,
    override: Override = None,
    params: Params = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="End with exit code 3 if anything uncovered leaves that a setting would close."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List all that leaves a site, where to, and which declared mechanism covers it.

    Examples:

        fedcore privacy report --preset digits-private

        fedcore privacy report --preset digits-private -S privacy.evaluation=off --json

        fedcore privacy report --preset digits-private -S data.encoding=schema --strict
    """
    config = load_config(params, preset=preset, overrides=override or ())
    found = leaves(config)
    open_ones = [leaving.what for leaving in found if leaving.covered is False]
    if as_json:
        facts = {"mode": config.privacy.mode, "unit": config.privacy.unit, "uncovered": open_ones}
        print(json.dumps({**facts, "leaves": [asdict(leaving) for leaving in found]}, sort_keys=True))
    else:
        _show(found, config.privacy.mode, config.privacy.unit)
    if strict and (closable := [leaving.what for leaving in found if leaving.closable]):
        from fedcore.errors import PlanRefused

        raise PlanRefused(
            f"{len(closable)} things leave a site without a declared mechanism, first: {closable[0]}; "
            "close them as the report says, or leave --strict out"
        )


def _show(found: tuple[Leaving, ...], mode: str, unit: str) -> None:
    console = Console(highlight=False, width=None if Console().is_terminal else 180)
    console.print(f"privacy.mode {mode}" + ("" if mode == "none" else f", unit: one {unit}"))
    columns = (Column("what", ratio=3), Column("goes to", ratio=2), Column("how", ratio=3))
    table = Table(*columns, Column("covered", no_wrap=True), Column("closed by", ratio=2), box=SIMPLE_HEAD)
    words = {True: "[green]yes[/]", False: "[red]no[/]", None: "[dim]stays[/]"}
    for leaving in found:
        table.add_row(
            leaving.what, leaving.goes or "", leaving.mechanism, words[leaving.covered], leaving.close
        )
    console.print(table)
