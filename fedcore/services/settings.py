"""What the services of one folder are told: commands, environment, Airflow's configuration file.

Nothing is started here and no service's library is imported. Secrets are made once, lie in files
that only their owner can read, and appear in no command, no log and no message.
"""

import json
import os
import secrets
import sys
from base64 import urlsafe_b64encode
from configparser import RawConfigParser
from pathlib import Path

from fedcore.errors import ServiceError
from fedcore.services.folder import airflow_home

AIRFLOW_USER = "admin"
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GX_ANALYTICS_ENABLED": "False",
    "DVC_NO_ANALYTICS": "1",
    "DO_NOT_TRACK": "true",
    "SCARF_ANALYTICS": "false",
}
# Loaded once by the process that every Airflow worker is forked from: 0 s in a task instead of 5.
PRELOAD = (
    "airflow",
    "airflow.executors.local_executor",
    "airflow.dag_processing.dagbag",
    "airflow.sdk.execution_time.task_runner",
    "airflow.providers.standard.operators.trigger_dagrun",
    "torch",
    "mlflow",
    "fedcore.airflow.preload",
)


def environment(folder: Path) -> dict[str, str]:
    """The environment of every service: no telemetry, one thread a process, Airflow's home and connection."""
    connection = airflow_home(folder) / "connection.json"
    return {
        **os.environ,
        **QUIET,
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "AIRFLOW_HOME": str(airflow_home(folder)),
        **(
            {"AIRFLOW_CONN_FEDCORE_DEFAULT": connection.read_text(encoding="utf-8")}
            if connection.exists()
            else {}
        ),
    }


def password_file(folder: Path) -> Path:
    """The file with the password of Airflow's user."""
    return airflow_home(folder) / "passwords.json"


def password(folder: Path) -> str:
    """The password of Airflow's user `AIRFLOW_USER`; raises `ServiceError` before the first start."""
    try:
        return str(json.loads(password_file(folder).read_text(encoding="utf-8"))[AIRFLOW_USER])
    except (OSError, ValueError, KeyError):
        raise ServiceError(f"no Airflow password in {folder}; start the services with: fedcore up") from None


def mlflow_command(folder: Path, port: int) -> list[str]:
    """The MLflow server on the work folder's own database and artifacts."""
    return [
        *(
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--workers",
            "1",
        ),
        *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"),
        *("--artifacts-destination", (folder / "mlartifacts").as_uri()),
    ]


def edge_command(folder: Path, port: int) -> list[str]:
    """A device that follows the signed repository of the folder."""
    edge = folder / "edge"
    return [
        *(
            sys.executable,
            "-c",
            "from fedcore.cli import main; main()",
            "edge",
            "run",
            "--port",
            str(port),
            "--poll",
            "1",
        ),
        *(
            "--repo",
            str(edge / "repo"),
            "--root",
            str(edge / "keys" / "root.json"),
            "--home",
            str(edge / "device"),
        ),
    ]


def write_airflow_config(folder: Path, port: int, dags: Path, connection: dict[str, str]) -> None:
    """Airflow's configuration, password and secrets in their files, mode 0600; what exists is kept.

    `connection` is the extra of the Airflow connection ``fedcore_default``: work directory, tracking
    address, parameter file and so on.
    """
    home = airflow_home(folder)
    home.mkdir(parents=True, exist_ok=True)
    if not password_file(folder).exists():
        _private(password_file(folder), json.dumps({AIRFLOW_USER: secrets.token_urlsafe(16)}) + "\n")
    parser = RawConfigParser()
    parser.read_dict(_airflow_settings(home, port, dags, _kept_secrets(home / "airflow.cfg")))
    partial = home / "airflow.cfg.tmp"
    _private(partial, "")
    with partial.open("w", encoding="utf-8") as out:
        parser.write(out)
    os.replace(partial, home / "airflow.cfg")
    _private(home / "connection.json", json.dumps({"conn_type": "fedcore", "extra": connection}) + "\n")


def _airflow_settings(home: Path, port: int, dags: Path, secret: dict[str, str]) -> dict[str, dict[str, str]]:
    address = f"http://127.0.0.1:{port}"
    return {
        "core": {
            "dags_folder": str(dags),
            "load_examples": "False",
            "executor": "LocalExecutor",
            "parallelism": "8",
            "simple_auth_manager_users": f"{AIRFLOW_USER}:admin",
            "simple_auth_manager_passwords_file": str(home / "passwords.json"),
            "execution_api_server_url": f"{address}/execution/",
            "fernet_key": secret["fernet_key"],
        },
        # WAL is Airflow's own default; the timeout lets four processes share one SQLite file.
        "database": {"sql_alchemy_conn": f"sqlite:///{home / 'airflow.db'}?timeout=60"},
        "scheduler": {
            "mp_start_method": "forkserver",
            "mp_forkserver_preload": ",".join(PRELOAD),
            "scheduler_idle_sleep_time": "0.2",
            # Loading what tasks need holds the scheduler up for a while; it must not think itself dead.
            "scheduler_health_check_threshold": "120",
            "orphaned_tasks_check_interval": "30",
            "task_instance_heartbeat_timeout": "120",
        },
        "api": {
            "host": "127.0.0.1",
            "port": str(port),
            "base_url": address,
            "workers": "1",
            "secret_key": secret["secret_key"],
        },
        # A worker that misses the end of its task looks again after this long (5 s by default), and is
        # not there for the next one until then. Large processes end slowly enough for that.
        "workers": {"min_heartbeat_interval": "1"},
        "api_auth": {"jwt_secret": secret["jwt_secret"]},
        "dag_processor": {"refresh_interval": "10", "parsing_processes": "2"},
        "usage_data_collection": {"enabled": "False"},
        "logging": {"base_log_folder": str(home / "logs"), "logging_level": "WARNING"},
    }


def _kept_secrets(config: Path) -> dict[str, str]:
    old = RawConfigParser()
    old.read(config, encoding="utf-8")
    return {
        "fernet_key": old.get(
            "core", "fernet_key", fallback=urlsafe_b64encode(secrets.token_bytes(32)).decode()
        ),
        "secret_key": old.get("api", "secret_key", fallback=secrets.token_urlsafe(32)),
        "jwt_secret": old.get("api_auth", "jwt_secret", fallback=secrets.token_urlsafe(48)),
    }


def _private(file: Path, text: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        out.write(text)
