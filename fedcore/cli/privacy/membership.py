"""``fedcore privacy membership``: can anyone tell from the model whose records it was trained on?"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table

from fedcore.cli.counted import counted
from fedcore.cli.run import AsJson, Override, Params

if TYPE_CHECKING:
    from fedcore.redteam.membership import Membership


def membership(
    preset: Annotated[
        str, typer.Option("--preset", help="A file of params/ laid over the parameters.")
    ] = "digits",
    defences: Annotated[
        str | None, typer.Option(help="Names with commas between; default: all of them.")
    ] = None,
    shadows: Annotated[
        int, typer.Option(help="Federated models a defence; each is attacked by the others.")
    ] = 12,
    shared_variance: Annotated[
        bool | None,
        typer.Option(help="One variance for all records; default: with fewer than 64 shadows."),
    ] = None,
    override: Override = None,
    params: Params = None,
    seed: Annotated[
        int | None, typer.Option(help="Of everything that is drawn; default: the parameters'.")
    ] = None,
    workdir: Annotated[
        Path, typer.Option("--workdir", help="Where everything the command writes goes.")
    ] = Path("runs/membership"),
    picture: Annotated[Path | None, typer.Option(help="Copy the picture to this file as well.")] = None,
    as_json: AsJson = False,
) -> None:
    """Attack federated models with LiRA: how many members are found at few false alarms, by defence.

    Trains many small federations on real records, each record in about half of them, and asks of
    each whether the others can tell its members. Numbers, report and picture go to the work directory.

    Examples:

        fedcore privacy membership

        fedcore privacy membership --defences none,central-1 --shadows 64 -S local.epochs=5

        fedcore privacy membership --seed 7 --json --picture membership.png
    """
    from fedcore.config import load_config
    from fedcore.redteam.membership import DEFENCES, defence, judge
    from fedcore.redteam.membership_report import as_json as facts_of
    from fedcore.redteam.membership_report import write
    from fedcore.redteam.written import copied

    names = list(DEFENCES) if defences is None else [name.strip() for name in defences.split(",")]
    given = [*(override or ()), *([] if seed is None else [f"seed={seed}"])]
    configs = {
        name: load_config(params, preset=preset, overrides=[*given, *defence(name).overrides])
        for name in names
    }
    with counted() as bar:
        task = bar.add_task("shadows", total=shadows * len(configs))
        found = judge(
            configs,
            workdir,
            shadows,
            shared_variance,
            lambda name: bar.update(task, advance=1, description=f"shadows: {name}"),
        )
    config = next(iter(configs.values()))
    files = write(found, workdir, f"{config.data.name}, {config.model.name}, {config.run.rounds} rounds")
    _show(found, files)
    if picture:
        files["copy"] = copied(Path(files["picture"]), picture)
    if as_json:
        print(json.dumps({"files": files, "defences": facts_of(found)}, sort_keys=True))


def _show(found: "list[Membership]", files: dict[str, str]) -> None:
    from fedcore.redteam.membership_report import interval, spent

    console = Console(highlight=False, width=None if Console().is_terminal else 200)
    rates = [power.rate for power in found[0].curves["online"].powers]
    heads: list[Any] = [Column("defence", no_wrap=True), "ε", "accuracy", "attack"]
    heads += [f"TPR at FPR {rate:g}" for rate in rates] + ["balanced accuracy"]
    table = Table(*heads, box=SIMPLE_HEAD)
    for one in found:
        for name, curve in one.curves.items():
            first = (
                (one.defence, spent(one), f"{one.shadows.accuracy:.3f}") if name == "online" else ("", "", "")
            )
            rest = (*(interval(power) for power in curve.powers), f"{curve.balanced_accuracy:.3f}")
            table.add_row(*first, name, *rest)
    console.print(table)
    for name, place in files.items():
        console.print(f"{name:8} {place}", markup=False, soft_wrap=True)
