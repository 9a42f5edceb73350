"""``fedcore up``, ``status``, ``down``: MLflow, Airflow and an edge device in the background."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

Folder = Annotated[Path, typer.Option("--folder", help="Where the services keep everything.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Port = Annotated[int | None, typer.Option(min=1, max=65535, help="A port instead of any free one.")]


def up(
    folder: Folder = Path("demo"),
    only: Annotated[
        list[str] | None, typer.Option(help="Start only this one (mlflow, airflow, edge); repeatable.")
    ] = None,
    mlflow_port: Port = None,
    airflow_port: Port = None,
    edge_port: Port = None,
    dags: Annotated[Path | None, typer.Option(help="Folder of the DAG files.")] = None,
    params: Annotated[Path, typer.Option(help="The parameter file that DAGs read.")] = Path("params.yaml"),
    sites: Annotated[Path, typer.Option(help="The folder with one folder a site.")] = Path("data/sites"),
    as_json: AsJson = False,
) -> None:
    """Start what does not run yet and wait until all of it answers.

    Example: fedcore up --folder demo --mlflow-port 5000
    """
    from fedcore import services

    asked = {"mlflow": mlflow_port, "airflow": airflow_port, "edge": edge_port}
    options = services.Options(
        services=tuple(only) if only else services.GROUPS,
        ports={name: port for name, port in asked.items() if port},
        dags=dags,
        connection={"params": str(params.resolve()), "sites": str(sites.resolve())},
    )
    report = Console(stderr=True)
    endpoints = services.up(folder, options, lambda line: report.print(line, style="dim", highlight=False))
    if as_json:
        print(json.dumps(asdict(endpoints)))
        return
    out = Console(soft_wrap=True, highlight=False)
    for name in ("mlflow", "airflow", "edge"):
        if url := getattr(endpoints, name):
            out.print(f"{name:8} {url}")
    out.print(
        f"Airflow's user is {endpoints.airflow_user}, its password in {endpoints.airflow_password_file}"
    )
    out.print(f"stop all of it with: fedcore down --folder {folder}")


def down(folder: Folder = Path("demo"), as_json: AsJson = False) -> None:
    """Stop everything that was started in a folder, orphans included.

    Example: fedcore down --folder demo
    """
    from fedcore import services

    stopped = services.down(folder)
    print(
        json.dumps({"stopped": stopped})
        if as_json
        else f"stopped: {', '.join(stopped) or 'nothing was running'}"
    )


def status(folder: Folder = Path("demo"), as_json: AsJson = False) -> None:
    """What runs in a folder, where it answers and where its log is.

    Example: fedcore status --folder demo --json
    """
    from fedcore import services

    facts = services.status(folder)
    if as_json:
        print(json.dumps(facts))
        return
    address, log = Column("address", no_wrap=True), Column("log", overflow="fold")
    table = Table("service", "runs", "pid", address, log)
    for name, one in facts.items():
        table.add_row(
            name, "yes" if one["running"] else "no", str(one["pid"]), str(one["url"] or ""), str(one["log"])
        )
    Console().print(table if facts else f"nothing was started in {folder}")


def add_to(app: typer.Typer) -> None:
    """Add this room's commands."""
    for command in (up, status, down):
        app.command()(command)
