"""``fedcore data``: which sets there are, get one, split it into sites, check the sites."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fedcore.cli.run import AsJson, Override, Params, Preset, Workdir
from fedcore.config import Config, load_config
from fedcore.errors import BadData

app = typer.Typer(help="Get, split and check data.", no_args_is_help=True, rich_markup_mode="markdown")

Sites = Annotated[
    Path | None, typer.Option("--sites", help="Folder with one folder a site; default: WORKDIR/data/sites.")
]
Picture = Annotated[
    Path | None,
    typer.Option("--picture", help="Where the picture goes; default: WORKDIR/data/partition.png."),
]


@app.command("list")
def list_sets(as_json: AsJson = False) -> None:
    """Show the data sets that fedcore knows by name.

    Example:

        fedcore data list
    """
    from fedcore.data.catalog import CATALOG

    if as_json:
        facts = [{k: v for k, v in vars(entry).items() if k != "load"} for entry in CATALOG.values()]
        print(json.dumps(facts, ensure_ascii=False))
        return
    table = Table(
        "name", "what, whose, under which licence, from where", title="Data sets", title_justify="left"
    )
    for entry in CATALOG.values():
        table.add_row(
            entry.name, f"{entry.title}\n{entry.clients}\n{entry.licence}, {entry.source}", end_section=True
        )
    Console().print(table)


@app.command()
def get(
    name: Annotated[str, typer.Argument(help="A name from `fedcore data list`.")],
    preset: Preset = None,
    override: Override = None,
    params: Params = None,
    workdir: Workdir = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Lay a data set down as WORKDIR/data/raw, with its schema.

    Examples:

        fedcore data get flights -S data.months=[7,8]

        fedcore data get own -S data.path=patients.csv -S data.client_column=hospital -S data.label=sick
    """
    from fedcore.data.catalog import ingest

    config = load_config(params, preset=preset, overrides=[*(override or ()), f"data.name={name}"])
    raw = workdir / "data" / "raw"
    _forget(workdir)
    schema = ingest(config.data, raw, config.seed)
    if as_json:
        print(json.dumps({"raw": str(raw), "schema": asdict(schema)}, ensure_ascii=False))
        return
    rows = f"rows of shape {schema.shape}" if schema.shape else f"{len(schema.columns)} columns"
    Console().print(
        f"{schema.dataset}: {rows}, to learn: {schema.label} ({schema.task}); in {raw}", soft_wrap=True
    )


@app.command()
def partition(
    preset: Preset = None,
    override: Override = None,
    params: Params = None,
    workdir: Workdir = Path("runs"),
    picture: Picture = None,
    as_json: AsJson = False,
) -> None:
    """Split WORKDIR/data/raw into one folder a site, and draw how the labels are spread.

    Examples:

        fedcore data partition

        fedcore data partition -S data.sites=[] -S data.partition.scheme=dirichlet -S data.partition.alpha=0.3
    """
    from fedcore.data.partition import partition as split
    from fedcore.data.picture import draw_partition
    from fedcore.data.schema import Schema

    config = load_config(params, preset=preset, overrides=override or ())
    sites = workdir / "data" / "sites"
    _forget(workdir)
    names = split(workdir / "data" / "raw", sites, config.data, config.seed)
    drawn = draw_partition(sites, Schema.load(sites), picture or workdir / "data" / "partition.png")
    if as_json:
        print(json.dumps({"sites": names, "folder": str(sites), "picture": str(drawn)}, ensure_ascii=False))
        return
    Console().print(f"{len(names)} sites in {sites}: {', '.join(names)}\npicture: {drawn}", soft_wrap=True)


@app.command()
def check(
    preset: Preset = None,
    override: Override = None,
    params: Params = None,
    workdir: Workdir = Path("runs"),
    sites: Sites = None,
    as_json: AsJson = False,
) -> None:
    """Judge each site's data; a site that fails will be left out of training. Fails if no site passes.

    Reasons name no values; the page and the details under WORKDIR/data/checks/docs stay with the site.

    Examples:

        fedcore data check

        fedcore data check --sites /srv/clients -S checks.min_rows=500
    """
    from fedcore.data.checks import check_sites, summary

    config: Config = load_config(params, preset=preset, overrides=override or ())
    root, out = sites or workdir / "data" / "sites", workdir / "data" / "checks"
    results = check_sites(root, config.checks, out)
    if as_json:
        print(json.dumps(summary(results), ensure_ascii=False))
    else:
        table = Table("site", "rows", "outcome", "why", title="Data checks", title_justify="left")
        for result in results.values():
            outcome = "[green]passed[/]" if result.passed else "[red]left out[/]"
            table.add_row(
                result.site, result.rows_bucket, outcome, "; ".join((*result.reasons, *result.details))
            )
        Console().print(table)
    if not any(result.passed for result in results.values()):
        raise BadData(
            str(root), "no site passes its checks", f"see {out / 'docs'}, mend the files or the limits"
        )


def _forget(workdir: Path) -> None:
    """A run that finds this stamp takes the data as its own; from now on they are not."""
    (workdir / "data" / "prepared.json").unlink(missing_ok=True)
