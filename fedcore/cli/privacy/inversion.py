"""``fedcore privacy inversion``: which pictures can the server rebuild from one client's update?"""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table

from fedcore.cli.counted import counted
from fedcore.cli.run import AsJson, Override, Params

if TYPE_CHECKING:
    from fedcore.redteam.inversion import Rebuilt


def inversion(
    preset: Annotated[
        str, typer.Option("--preset", help="A file of params/ laid over the parameters.")
    ] = "digits",
    batch: Annotated[int, typer.Option(help="Pictures a client trains on.")] = 4,
    steps: Annotated[int, typer.Option(help="Local steps, each over all of them.")] = 1,
    victims: Annotated[int, typer.Option(help="Clients whose numbers are averaged.")] = 2,
    clip: Annotated[float, typer.Option(help="Norm to which the clipping defences clip an update.")] = 0.1,
    attacks: Annotated[
        str, typer.Option(help="Of first layer, DLG, inverting; commas between.")
    ] = "first layer,DLG,inverting",
    effort: Annotated[float, typer.Option(help="How long the searches go on; 1 is the default.")] = 1.0,
    override: Override = None,
    params: Params = None,
    seed: Annotated[
        int | None, typer.Option(help="Of everything that is drawn; default: the parameters'.")
    ] = None,
    workdir: Annotated[
        Path, typer.Option("--workdir", help="Where everything the command writes goes.")
    ] = Path("runs/inversion"),
    picture: Annotated[Path | None, typer.Option(help="Copy the picture to this file as well.")] = None,
    as_json: AsJson = False,
) -> None:
    """Rebuild training pictures from one update, with and without defences, and show them.

    The first layer's ratio, DLG and inverting gradients against no defence, clipping, clipping with
    noise, top-k and a secure sum over all clients. Numbers, report and picture go to the work directory.

    Examples:

        fedcore privacy inversion

        fedcore privacy inversion --batch 1 --steps 5 --attacks "first layer,inverting"

        fedcore privacy inversion --batch 8 --victims 1 --json --picture inversion.png
    """
    from fedcore.config import load_config
    from fedcore.errors import BadInput, UnknownName
    from fedcore.redteam.inversion import ATTACKS, defences, invert, open_scenes
    from fedcore.redteam.inversion_report import as_json as facts_of
    from fedcore.redteam.inversion_report import write
    from fedcore.redteam.written import copied

    chosen = [name.strip() for name in attacks.split(",")]
    for name in chosen:
        if name not in ATTACKS:
            raise UnknownName("attack", name, ATTACKS)
    if not 0 < effort <= 100:
        raise BadInput(f"effort must be above 0 and at most 100, got {effort:g}")
    given = [*(override or ()), *([] if seed is None else [f"seed={seed}"])]
    config = load_config(params, preset=preset, overrides=given)
    config = replace(config, model=replace(config.model, framework="torch"))
    scenes = open_scenes(config, workdir, batch, steps, victims)
    through = defences(len(scenes[0].updates), clip)
    with counted() as bar:
        task = bar.add_task("inversion", total=len(through) * len(chosen))
        found = invert(
            scenes, through, chosen, effort, lambda name: bar.update(task, advance=1, description=name)
        )
    files = write(scenes, found, workdir, config.data.name)
    _show(found, files)
    if picture:
        files["copy"] = copied(Path(files["picture"]), picture)
    if as_json:
        print(json.dumps({"files": files, **facts_of(scenes, found)}, sort_keys=True))


def _show(found: "list[Rebuilt]", files: dict[str, str]) -> None:
    console = Console(highlight=False, width=None if Console().is_terminal else 200)
    table = Table(
        Column("defence", no_wrap=True), "attack", "MSE", "PSNR, dB", "SSIM", "labels found", box=SIMPLE_HEAD
    )
    for one in found:
        numbers = (f"{one.mse:.4f}", f"{one.psnr:.1f}", f"{one.ssim:.3f}", f"{100 * one.labels:.0f} %")
        table.add_row(one.defence, one.attack, *numbers)
    console.print(table)
    for name, place in files.items():
        console.print(f"{name:8} {place}", markup=False, soft_wrap=True)
