"""What the services of a folder consist of: processes, what each needs first, how one sees it is ready."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from fedcore.errors import ServiceError
from fedcore.services import process, settings
from fedcore.services.folder import database, migrated
from fedcore.services.health import airflow_part_beats, answers

GROUPS = ("mlflow", "airflow", "edge")


@dataclass(frozen=True)
class Options:
    """What to start, on which ports (missing: any free one), and what Airflow's tasks are told.

    `connection` is laid over the connection ``fedcore_default``; `timeout_s` bounds the start.
    """

    services: tuple[str, ...] = GROUPS
    ports: Mapping[str, int] = field(default_factory=dict)
    dags: Path | None = None
    connection: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 240.0


@dataclass(frozen=True)
class Service:
    """One process: its command, what must be ready before it, and how to see that it is ready.

    `ready` gets the process's start in Unix seconds and returns None, or what is missing.
    """

    name: str
    command: list[str]
    ready: Callable[[float], str | None]
    needs: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """``mlflow``, ``airflow`` or ``edge``."""
        return group_of(self.name)


def group_of(name: str) -> str:
    """The group of a service's name: what a port is chosen for."""
    return name.split("-", maxsplit=1)[0]


def plan(folder: Path, ports: Mapping[str, int], options: Options) -> list[Service]:
    """The processes of the groups in `ports`; writes the files they need first."""
    services: list[Service] = []
    if "mlflow" in ports:
        command, health = (
            settings.mlflow_command(folder, ports["mlflow"]),
            f"{address(ports['mlflow'])}/health",
        )
        services.append(Service("mlflow", command, lambda since: answers(health)))
    if "airflow" in ports:
        connection = _connection(folder, ports) | dict(options.connection)
        settings.write_airflow_config(folder, ports["airflow"], options.dags or dags_folder(), connection)
        services += _airflow(folder, address(ports["airflow"]))
    if "edge" in ports:
        _make_edge_keys(folder / "edge" / "keys")
        page = f"{address(ports['edge'])}/health"
        services.append(
            Service("edge", settings.edge_command(folder, ports["edge"]), lambda since: answers(page))
        )
    return services


def address(port: int) -> str:
    """The address of a service on this machine."""
    return f"http://127.0.0.1:{port}"


def dags_folder() -> Path:
    """The DAG files: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).parents[1]
    for place in (package.parent / "dags", package / "airflow" / "dags"):
        if any(place.glob("*_dag.py")):
            return place
    raise ServiceError("no DAG files beside the package; name their folder with --dags")


def _airflow(folder: Path, url: str) -> list[Service]:
    """Four processes after the database; tasks need the api-server, so the scheduler waits for it.

    On a new database there is no task yet and all four start together.
    """
    done, fresh = migrated(folder), not database(folder).exists()
    services = [] if done.exists() else [_migration(done)]
    needs = tuple(service.name for service in services)
    return [
        *services,
        Service("airflow-api", _command("api-server"), lambda since: answers(f"{url}/api/v2/version"), needs),
        Service(
            "airflow-dags",
            _command("dag-processor"),
            partial(airflow_part_beats, url, "dag_processor"),
            needs,
        ),
        Service(
            "airflow-triggers", _command("triggerer"), partial(airflow_part_beats, url, "triggerer"), needs
        ),
        Service(
            "airflow-scheduler",
            _command("scheduler"),
            partial(airflow_part_beats, url, "scheduler"),
            needs if fresh else (*needs, "airflow-api"),
        ),
    ]


def _command(part: str) -> list[str]:
    """One of Airflow's processes. Logs are read from their files, so no extra port serves them."""
    quiet = ["--skip-serve-logs"] if part in ("scheduler", "triggerer") else []
    return process.python("airflow", part, *quiet)


def _migration(done: Path) -> Service:
    """Makes the database, or brings it to the installed version; ends then."""
    script = ["/bin/sh", "-c", '"$0" -m airflow db migrate && touch "$1"', sys.executable, str(done)]
    return Service(
        "airflow-db", script, lambda since: None if done.exists() else "the database is not made yet"
    )


def _make_edge_keys(folder: Path) -> None:
    """Keys of the signed repository, made at the first start."""
    if not folder.exists():
        from fedcore.edge.keys import make_keys

        make_keys(folder)


def _connection(folder: Path, ports: Mapping[str, int]) -> dict[str, str]:
    return {
        "workdir": str(folder),
        "edge": str(folder / "edge"),
        "tracking_uri": address(ports["mlflow"]) if "mlflow" in ports else "",
        "device": address(ports["edge"]) if "edge" in ports else "",
    }
