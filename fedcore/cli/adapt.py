"""``fedcore adapt``: what a model becomes at clients it never saw, with a few rows and a few steps."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table

from fedcore.adaptation import Adaptation
from fedcore.cli.counted import counted
from fedcore.cli.run import AsJson, Workdir
from fedcore.local.metrics import LOWER_IS_BETTER


def adapt(
    run: Annotated[
        str, typer.Option("--run", help="Name of a run that kept clients out (personal.new_clients).")
    ],
    samples: Annotated[int, typer.Option("--samples", min=1, help="Rows that a new client adapts on.")] = 10,
    steps: Annotated[int, typer.Option("--steps", min=0, help="Steps of SGD on them.")] = 5,
    rate: Annotated[
        float | None, typer.Option("--rate", min=0.0, help="Their learning rate; default: personal.inner_lr.")
    ] = None,
    workdir: Workdir = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Adapt the model of a run at each of its new clients, and show what it was worth to them before and after.

    Example:

        fedcore adapt --run fashion --samples 10 --steps 5 --workdir runs
    """
    from fedcore.adaptation import adapt as adapt_all
    from fedcore.session import seen

    with seen(workdir, run) as opened, counted() as bar:
        shown = bar.add_task("new clients", total=len(opened.body.get("new_clients", ())) or None)
        found = adapt_all(opened, samples, steps, rate, lambda _: bar.update(shown, advance=1))
    if as_json:
        print(json.dumps(found.as_json(), sort_keys=True))
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"{len(found.clients)} new clients of run {found.run}: {found.steps} steps at {found.rate:g} on "
        f"{found.samples} rows each"
    )
    if found.clients:
        console.print(table(found))
    for client, why in found.skipped.items():
        console.print(f"skipped      {client}: {why}", markup=False)


def table(found: Adaptation) -> Table:
    """All rows together, the worst tenth, quantiles over clients; before, after, and what was gained."""
    name = next(n for n in ("accuracy", "c_index", "r2", "mse") if n in found.metrics)
    shown = Table(Column(name, no_wrap=True), "before", "after", "gain", box=SIMPLE_HEAD, pad_edge=False)
    rows = {"all rows together": (found.metrics[name], found.metrics[f"personal_{name}"])}
    for which, label in {
        "worst_decile": "worst tenth of clients",
        "p10": "10 %",
        "p50": "median",
        "p90": "90 %",
    }.items():
        rows[label] = (found.spread[f"{name}_{which}"], found.spread[f"personal_{name}_{which}"])
    for label, (before, after) in rows.items():
        gain = before - after if name in LOWER_IS_BETTER else after - before
        shown.add_row(label, f"{before:.4f}", f"{after:.4f}", f"{gain:+.4f}")
    return shown
