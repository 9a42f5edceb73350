"""``fedcore edge``: keys, export, publish, run, status, rollback, verify: one library call each, then printing."""

import dataclasses
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fedcore.config import load_config
from fedcore.errors import MissingExtra

app = typer.Typer(
    help="Export, sign, publish and run models on devices.", no_args_is_help=True, rich_markup_mode=None
)

Repo = Annotated[Path, typer.Option("--repo", help="Folder of the signed repository.")]
Keys = Annotated[Path, typer.Option("--keys", help="Folder that 'fedcore edge keys' made.")]
Channel = Annotated[str, typer.Option("--channel", help="Which devices: the name of their channel.")]
Params = Annotated[
    Path | None, typer.Option("--params", help="Parameter file; params.yaml of this folder if there.")
]
Settings = Annotated[list[str] | None, typer.Option("--set", help="Override a parameter: KEY=VALUE.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command()
def keys(
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.")], as_json: AsJson = False
) -> None:
    """Make the keys of a signed repository, and the root.json that devices trust.

    Example: fedcore edge keys runs/edge/keys
    """
    with _extra("edge"):
        from fedcore.edge.keys import make_keys
    root = make_keys(folder)
    _show(
        {"root": str(root), "keys": str(folder)},
        as_json,
        "New keys: give root.json to devices, keep root.pem offline",
    )


@app.command()
def export(
    model: Annotated[Path, typer.Option("--model", help="Folder of a trained model.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the bundle.")],
    sites: Annotated[
        Path, typer.Option("--sites", help="Folder of sites whose held-out rows are compared.")
    ] = Path("data/sites"),
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the model; promotion.model if not given.")
    ] = None,
    params: Params = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Export a trained model to ONNX, within the limits of the parameters' edge section.

    Example: fedcore edge export --model runs/runs/r1/model --sites runs/data/sites --out runs/edge/export
    """
    with _extra("edge"):
        from fedcore.adapters.trained import TrainedModel
        from fedcore.edge.export import export as run_export
        from fedcore.edge.holdout import held_out
    config = load_config(params, overrides=settings or ())
    trained = TrainedModel.load(model)
    columns = held_out(sites, trained.schema, config.seed, config.data.test_fraction)
    report = run_export(trained, out, columns, config.edge, name=name or config.promotion.model)
    _show(dataclasses.asdict(report), as_json, "Exported")


@app.command()
def publish(
    bundle: Annotated[Path, typer.Option("--bundle", help="Folder that 'fedcore edge export' wrote.")],
    repo: Repo,
    keys: Keys,
    version: Annotated[int, typer.Option("--version", min=1, help="The registry's version of the model.")],
    channel: Channel = "champion",
    rollback: Annotated[
        bool, typer.Option("--allow-lower", help="Let the version be lower than the published.")
    ] = False,
    params: Params = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Sign a bundle and point devices at it; the same again renews signatures that age.

    Example: fedcore edge publish --bundle runs/edge/export --repo runs/edge/repo --keys runs/edge/keys --version 3
    """
    with _extra("edge"):
        from fedcore.edge import bundle as edge_bundle
    days = load_config(params, overrides=settings or ()).edge.expires_days
    published = edge_bundle.publish(
        bundle, repo, keys, version, channel, rollback=rollback, expires_days=days
    )
    _show(dataclasses.asdict(published), as_json, "Published" if published.changed else "Already published")


@app.command()
def rollback(
    repo: Repo,
    keys: Keys,
    to: Annotated[
        int | None, typer.Option("--to", min=1, help="The version; the one before if not given.")
    ] = None,
    channel: Channel = "champion",
    params: Params = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Point devices back at an earlier version, in a newly signed state.

    Example: fedcore edge rollback --repo runs/edge/repo --keys runs/edge/keys
    """
    with _extra("edge"):
        from fedcore.edge import bundle as edge_bundle
    days = load_config(params, overrides=settings or ()).edge.expires_days
    published = edge_bundle.rollback(repo, keys, channel, to=to, expires_days=days)
    _show(dataclasses.asdict(published), as_json, "Rolled back" if published.changed else "Already there")


@app.command()
def verify(
    repo: Annotated[str, typer.Option("--repo", help="Folder or address of the signed repository.")],
    root: Annotated[Path, typer.Option("--root", help="The root.json that devices trust.")],
    as_json: AsJson = False,
) -> None:
    """Check signatures, expiry and every file of a signed repository.

    Example: fedcore edge verify --repo runs/edge/repo --root runs/edge/keys/root.json
    """
    with _extra("edge"):
        from fedcore.edge import bundle as edge_bundle
    _show(dataclasses.asdict(edge_bundle.verify(repo, root)), as_json, "Everything is as signed")


@app.command()
def run(
    repo: Annotated[str, typer.Option("--repo", help="Folder or address of the signed repository.")],
    root: Annotated[Path, typer.Option("--root", help="The root.json this device trusts.")],
    home: Annotated[Path, typer.Option("--home", help="Folder for what the device keeps.")],
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 8090,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    poll: Annotated[
        float, typer.Option("--poll", min=0.1, help="Seconds between looks for a new version.")
    ] = 5.0,
    channel: Channel = "champion",
    as_json: AsJson = False,
) -> None:
    """Be a device: verify, load and serve what is published, until stopped.

    Example: fedcore edge run --repo runs/edge/repo --root runs/edge/keys/root.json --home runs/edge/home --port 8090

    Then: curl -d '{"rows": [{…}]}' http://127.0.0.1:8090/predict
    """
    with _extra("edge"):
        from fedcore.edge.runtime import Device
        from fedcore.edge.server import serve
    device = Device(home, repo, root, channel)
    try:
        serve(
            device,
            host,
            port,
            poll,
            lambda url: _show({"url": url, "home": str(home)}, as_json, "Edge device"),
        )
    finally:
        device.close()


@app.command()
def status(
    url: Annotated[str, typer.Argument(help="Address of the device.")] = "http://127.0.0.1:8090",
    as_json: AsJson = False,
) -> None:
    """Show the health report of a running device.

    Example: fedcore edge status http://127.0.0.1:8090
    """
    from fedcore.edge.health import ask_health

    _show(ask_health(url), as_json, f"Edge device at {url}")


def _show(facts: dict[str, Any], as_json: bool, title: str) -> None:
    """Print `facts` as one JSON object or as a table."""
    if as_json:
        print(json.dumps(facts, default=str, ensure_ascii=False))
    else:
        table = Table("", "", show_header=False)
        table.columns[1].overflow = "fold"  # digests and addresses are to be copied whole
        for name, value in facts.items():
            table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
        print(title)
        Console().print(table)
    sys.stdout.flush()


@contextmanager
def _extra(extra: str) -> Iterator[None]:
    """A missing library in a sentence."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name).partition(".")[0], extra) from None
