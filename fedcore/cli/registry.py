"""``fedcore promote`` and ``fedcore rollback``: move the registry's aliases, print what moved."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fedcore.config import Config, TrackingConfig, load_config
from fedcore.errors import MissingExtra

app = typer.Typer(
    help="The model in use: promote and roll back.", no_args_is_help=True, rich_markup_mode=None
)

Workdir = Annotated[
    Path, typer.Option("--workdir", help="Folder of the runs, used without a tracking address.")
]
Tracking = Annotated[str | None, typer.Option("--tracking-uri", help="MLflow server or database.")]
Params = Annotated[
    Path | None, typer.Option("--params", help="Parameter file; params.yaml of this folder if there.")
]
Preset = Annotated[str | None, typer.Option("--preset", help="Preset laid over the parameters.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="Override a parameter: KEY=VALUE.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command()
def promote(
    run: Annotated[
        str | None, typer.Argument(help="Register this run's model first: name or MLflow id.")
    ] = None,
    version: Annotated[
        int | None, typer.Option("--version", min=1, help="This version, not the candidate.")
    ] = None,
    workdir: Workdir = Path("runs"),
    tracking_uri: Tracking = None,
    params: Params = None,
    preset: Preset = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Make the candidate the champion, if it passes every gate of promotion.gates.

    Example: fedcore promote --version 3
    """
    from fedcore import registry

    config = load_config(params, preset=preset, overrides=settings or ())
    uri = _address(config, tracking_uri, workdir)
    if run is not None and version is None:
        mlflow_run = registry.find_run(uri, config.tracking.experiment, run)
        version = registry.register(uri, config.promotion, mlflow_run).number
    done = registry.promote(uri, config.promotion, version)
    facts = {
        "model": done.champion.name,
        "champion": done.champion.number,
        "previous": done.previous,
        "moved": done.moved,
        "gates": dict(done.gates),
        "guarantee": done.champion.guarantee or "not stated by the run",
        "uri": done.champion.uri,
    }
    _show(facts, as_json, "Promoted" if done.moved else "Already champion")


@app.command()
def rollback(
    workdir: Workdir = Path("runs"),
    tracking_uri: Tracking = None,
    params: Params = None,
    preset: Preset = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Make the champion before the present one the champion again.

    Example: fedcore rollback --workdir runs
    """
    from fedcore import registry

    config = load_config(params, preset=preset, overrides=settings or ())
    back = registry.rollback(_address(config, tracking_uri, workdir), config.promotion.model)
    _show({"model": back.name, "champion": back.number, "uri": back.uri}, as_json, "Rolled back")


def _address(config: Config, tracking_uri: str | None, workdir: Path) -> str:
    try:
        from fedcore.tracking.mlflow import address
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "tracking") from None
    return address(TrackingConfig(uri=tracking_uri or config.tracking.uri), workdir)


def _show(facts: dict[str, Any], as_json: bool, title: str) -> None:
    """Print `facts` as one JSON object or as a table."""
    if as_json:
        print(json.dumps(facts, ensure_ascii=False))
        return
    table = Table(title=title, title_justify="left", show_header=False)
    for name, value in facts.items():
        lines = (
            [f"{k}: {v}" for k, v in value.items()] or ["none set"]
            if isinstance(value, dict)
            else [str(value)]
        )
        table.add_row(name, "\n".join(lines))
    Console().print(table)
