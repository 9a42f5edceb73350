"""Where the services of a folder keep their files, and the lock that lets one start them at a time."""

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from fedcore.blobs import write_whole
from fedcore.errors import CorruptState, ServiceError


def airflow_home(folder: Path) -> Path:
    """Where Airflow keeps its database, logs and configuration."""
    return folder / "services" / "airflow"


def database(folder: Path) -> Path:
    """Airflow's database."""
    return airflow_home(folder) / "airflow.db"


def migrated(folder: Path) -> Path:
    """The file that says that Airflow's database is of the installed version."""
    return airflow_home(folder) / f"database-{version('apache-airflow-core')}"


def pids(folder: Path) -> Path:
    """The folder of pid files."""
    return folder / "services" / "pids"


def log(folder: Path, name: str) -> Path:
    """The log of a service."""
    return folder / "services" / "logs" / f"{name}.log"


def read_ports(folder: Path) -> dict[str, int]:
    """The ports of last time by service; raises `CorruptState` when their file holds something else."""
    file = folder / "services" / "ports.json"
    try:
        return {name: int(port) for name, port in json.loads(file.read_text(encoding="utf-8")).items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError):
        raise CorruptState(f"{file} does not hold ports; stop the services and delete it") from None


def write_ports(folder: Path, ports: Mapping[str, int]) -> None:
    """Keep the ports for next time."""
    write_whole(folder / "services" / "ports.json", json.dumps(dict(ports)).encode())


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Held while services are started in `folder`; raises `ServiceError` when somebody else does that."""
    try:
        (folder / "services").mkdir(parents=True, exist_ok=True)
        lock = (folder / "services" / "lock").open("w", encoding="utf-8")
    except OSError as error:
        raise ServiceError(f"cannot write in {folder}: {error.strerror}; name another folder") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServiceError(
                f"services are being started in {folder} already; wait for that or stop it"
            ) from None
        yield
