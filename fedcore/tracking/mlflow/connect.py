"""A client of an MLflow server or database that is known to answer, or one sentence why not."""

import logging
import os
import sqlite3
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from requests.exceptions import RequestException
from sqlalchemy.exc import SQLAlchemyError

from fedcore.config import TrackingConfig
from fedcore.errors import BadConfig, BadInput, ServiceError, StorageError

_SQLITE = "sqlite:///"
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_SECONDS_TO_ANSWER = 10.0


def address(config: TrackingConfig, workdir: Path) -> str:
    """Where runs are tracked: the configured address, or the database in `workdir`."""
    return config.uri or f"{_SQLITE}{workdir.resolve()}/mlflow.db"


def connect(uri: str) -> MlflowClient:
    """A client for tracking and registry at `uri`, an ``http(s)://`` server or a database.

    Raises `ServiceError` within seconds where nothing answers, `StorageError` for a database
    that cannot be used, `BadConfig` for an address MLflow cannot serve us by.
    """
    scheme = urlsplit(uri).scheme.partition("+")[0]
    logging.getLogger("mlflow").setLevel(logging.WARNING)  # its table-making chatter, if it came first
    if scheme in ("http", "https"):
        _greet(uri)
    elif scheme == "sqlite":
        _check_database(uri)
    elif scheme not in _DATABASES:
        raise BadConfig("tracking.uri", uri, "must be http://…, https://…, sqlite:///… or another database")
    with answers(uri):
        return _opened(uri)


def _opened(uri: str) -> MlflowClient:
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    client.search_experiments(max_results=1)  # makes the tables of a new database now, not halfway
    return client


def _make_database(path: Path) -> None:
    """A new database with all its tables, in one move: MLflow cannot mend one that it was killed over."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".mlflow.") as folder:
        _opened(f"{_SQLITE}{folder}/mlflow.db")
        with suppress(FileExistsError):  # another process was first; its database counts
            os.link(f"{folder}/mlflow.db", path)


def artifact_root(uri: str, workdir: Path) -> str | None:
    """Folder for artifacts where no server keeps them: beside the database; None on a server."""
    if urlsplit(uri).scheme in ("http", "https"):
        return None
    home = Path(uri.removeprefix(_SQLITE)).parent if uri.startswith(_SQLITE) else workdir
    return (home.resolve() / "mlartifacts").as_uri()


@contextmanager
def answers(uri: str) -> Iterator[None]:
    """Within it, whatever MLflow, the network or the database raises becomes one sentence of ours."""
    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError) as error:
        said = " ".join(str(error).split())[:300]
        if getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST":
            raise BadInput(f"MLflow at {shown(uri)} does not know it: {said}; check the name or id") from None
        if urlsplit(uri).scheme in ("http", "https"):
            raise ServiceError(
                f"MLflow at {shown(uri)} refused or did not answer: {said}; see its log"
            ) from None
        raise StorageError(
            f"MLflow's database {shown(uri)}: {said}; check the folder's space and rights"
        ) from None


def shown(uri: str) -> str:
    """`uri` without a password."""
    parts = urlsplit(uri)
    return uri.replace(parts.netloc, parts.netloc.rpartition("@")[2], 1) if parts.password else uri


def _greet(uri: str) -> None:
    """One quick question: MLflow's own client asks a dead address again and again."""
    step = "start it with 'mlflow server' (see mlflow/README.md) or leave tracking.uri empty"
    try:
        with urllib.request.urlopen(uri.rstrip("/") + "/health", timeout=_SECONDS_TO_ANSWER):
            return
    except urllib.error.HTTPError as error:
        error.close()
        if error.code >= 500:
            raise ServiceError(
                f"MLflow at {shown(uri)} answers {error.code} to /health; see its log"
            ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise ServiceError(f"no MLflow server answers at {shown(uri)} ({reason}); {step}") from None


def _check_database(uri: str) -> None:
    """MLflow retries a file it cannot open for minutes: look first."""
    path = Path(uri.removeprefix(_SQLITE))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _make_database(path)
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA schema_version").fetchone()
            database.execute("BEGIN IMMEDIATE").close()  # fails in a read-only place
            database.rollback()
    except (OSError, sqlite3.Error, SQLAlchemyError, MlflowException) as error:
        raise StorageError(
            f"MLflow's database {path} cannot be used ({error}); free or mend it, or choose another --workdir"
        ) from None
