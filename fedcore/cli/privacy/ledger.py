"""``fedcore privacy ledger``: who spent what of which population's budget."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table


def ledger(
    workdir: Annotated[Path, typer.Option("--workdir", help="Where the runs lie.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the entries as one JSON list.")] = False,
) -> None:
    """Show every charge of the privacy ledger, once its chain has been verified.

    Examples:

        fedcore privacy ledger

        fedcore privacy ledger --workdir runs --json
    """
    from fedcore.ledger import entries
    from fedcore.store import Store

    with Store.at(workdir) as store:
        found = entries(store)
    if as_json:
        print(json.dumps(found, sort_keys=True))
        return
    console = Console(highlight=False)
    console.print(_table(found) if found else f"nothing was charged in {workdir}")


def _table(found: list[dict[str, Any]]) -> Table:
    table = Table("#", "account", "run", "round", "what", "noise multiplier", "sampling rate", "hash")
    for entry in found:
        event = entry["body"]
        table.add_row(
            str(entry["sequence"]),
            entry["account"],
            entry["run"],
            str(entry["round"]),
            entry["kind"],
            f"{event['noise_multiplier']:g}",
            "all" if event["sampling_rate"] is None else f"{event['sampling_rate']:g}",
            entry["sha256"][:12],
        )
    return table
