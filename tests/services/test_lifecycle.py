"""The services of a folder: what goes up answers, what goes down is gone, and nobody else's port is taken.

Here with the edge device, the lightest of them; MLflow and Airflow are in `test_airflow_services.py`.
"""

import json
import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from fedcore.errors import CorruptState, ServiceError, UnknownName
from fedcore.services import Options, down, endpoints, process, settings, status, up
from fedcore.services.folder import log, only_one, pids, read_ports
from fedcore.services.health import answers
from fedcore.services.lifecycle import close_dead_jobs
from fedcore.services.parts import dags_folder, plan

START = """
import signal
import sys
from pathlib import Path
from fedcore.services import Options, up
signal.signal(signal.SIGINT, signal.default_int_handler)
up(Path(sys.argv[1]), Options(services=("edge",)))
"""
EDGE = Options(services=("edge",), timeout_s=60)


@pytest.fixture
def folder(tmp_path):
    yield tmp_path / "demo"
    down(tmp_path / "demo", grace_s=2)


def shown(folder: Path, columns: int) -> str:
    """What ``fedcore status`` prints where lines are that wide."""
    command = [
        sys.executable,
        "-c",
        "from fedcore.cli import main; main()",
        "status",
        "--folder",
        str(folder),
    ]
    width = os.environ | {"COLUMNS": str(columns)}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=width).stdout


def test_up_answers_status_shows_it_and_down_leaves_nothing(folder):
    said: list[str] = []
    there = up(folder, EDGE, said.append)
    assert answers(f"{there.edge}/health") is None
    assert there.mlflow is None
    assert there.airflow is None
    assert endpoints(folder) == there
    assert status(folder)["edge"]["running"]
    assert str(there.edge) in shown(folder, columns=60), "an address that is cut short helps nobody"
    assert any("edge is ready" in line for line in said)
    assert up(folder, EDGE) == there, "what runs is left alone"
    assert down(folder) == ["edge"]
    assert answers(f"{there.edge}/health") is not None
    assert down(folder) == []
    assert status(folder) == {}


def test_a_killed_service_comes_back_on_its_port(folder):
    there = up(folder, EDGE)
    [edge] = process.recorded(pids(folder)).values()
    os.kill(edge.pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(edge.pid)], timeout=10)
    assert not status(folder)["edge"]["running"]
    assert endpoints(folder).edge is None
    assert up(folder, EDGE) == there


def test_keys_and_passwords_are_for_their_owner_alone(tmp_path, root):
    ports = {"mlflow": 5000, "airflow": 8080, "edge": 8090}
    plan(tmp_path, ports, Options(dags=root / "dags", connection={"sites": "somewhere"}))
    home = tmp_path / "services" / "airflow"
    private = [home / "airflow.cfg", home / "passwords.json", home / "connection.json"]
    private += sorted((tmp_path / "edge" / "keys").glob("*.pem"))
    assert [stat.S_IMODE(file.stat().st_mode) for file in private] == [0o600] * len(private)
    before = (home / "airflow.cfg").read_text(), settings.password(tmp_path)
    plan(tmp_path, ports, Options(dags=root / "dags"))
    assert ((home / "airflow.cfg").read_text(), settings.password(tmp_path)) == before


def test_what_is_secret_is_in_no_command_and_no_environment(tmp_path, root):
    ports = {"mlflow": 5000, "airflow": 8080, "edge": 8090}
    services = plan(tmp_path, ports, Options(dags=root / "dags"))
    told = [part for service in services for part in service.command]
    told += settings.environment(tmp_path).values()
    secrets = [
        settings.password(tmp_path),
        *settings._kept_secrets(tmp_path / "services" / "airflow" / "airflow.cfg").values(),
    ]
    assert not [secret for secret in secrets if any(secret in part for part in told)]


def test_tasks_are_told_where_everything_is(tmp_path, root):
    plan(
        tmp_path,
        {"mlflow": 5000, "airflow": 8080},
        Options(dags=root / "dags", connection={"sites": "there"}),
    )
    told = json.loads(settings.environment(tmp_path)["AIRFLOW_CONN_FEDCORE_DEFAULT"])
    assert told["conn_type"] == "fedcore"
    assert told["extra"] == {
        "workdir": str(tmp_path),
        "edge": str(tmp_path / "edge"),
        "tracking_uri": "http://127.0.0.1:5000",
        "device": "",
        "sites": "there",
    }


def test_a_scheduler_waits_for_the_api_server_once_there_may_be_tasks(tmp_path, root):
    def needs() -> tuple[str, ...]:
        services = plan(tmp_path, {"airflow": 8080}, Options(dags=root / "dags"))
        return {service.name: service.needs for service in services}["airflow-scheduler"]

    assert needs() == ("airflow-db",)
    (tmp_path / "services" / "airflow" / "airflow.db").touch()
    assert needs() == ("airflow-db", "airflow-api")


def test_a_port_that_is_taken_is_named_and_nothing_is_started(folder):
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(ServiceError, match=f"port {port} for edge is taken"):
            up(folder, Options(services=("edge",), ports={"edge": port}))
    assert status(folder) == {}


def test_a_service_that_ends_at_once_is_quoted_and_nothing_is_left(folder):
    (folder / "edge" / "keys").mkdir(parents=True)  # no root.json in it
    with pytest.raises(ServiceError, match=r"edge ended while starting: .*root\.json"):
        up(folder, EDGE)
    assert status(folder) == {}


def test_a_service_that_does_not_answer_in_time_is_stopped(folder):
    with pytest.raises(ServiceError, match="edge is not ready in time"):
        up(folder, Options(services=("edge",), timeout_s=0))
    assert status(folder) == {}


def test_two_starts_in_one_folder_do_not_meet(folder):
    with only_one(folder), pytest.raises(ServiceError, match="being started in"):
        up(folder, EDGE)


def test_an_unknown_service_is_named(folder):
    with pytest.raises(UnknownName, match="unknown service 'mflow'; did you mean 'mlflow'"):
        up(folder, Options(services=("mflow",)))


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "demo").write_text("not a folder")
    with pytest.raises(ServiceError, match="cannot write in"):
        up(tmp_path / "demo", EDGE)


@pytest.mark.parametrize("text", ["", "[]", '{"edge": "many"}'])
def test_a_broken_file_of_ports_is_named(tmp_path, text):
    (tmp_path / "services").mkdir()
    (tmp_path / "services" / "ports.json").write_text(text)
    with pytest.raises(CorruptState, match=r"ports\.json does not hold ports"):
        read_ports(tmp_path)


def test_without_a_first_start_there_is_no_password(tmp_path):
    with pytest.raises(ServiceError, match="start the services with: fedcore up"):
        settings.password(tmp_path)


def test_the_dags_of_a_checkout_are_found(root):
    assert dags_folder() == root / "dags"


def test_jobs_of_dead_processes_are_closed_and_a_database_without_jobs_is_left_alone(tmp_path):
    file = tmp_path / "airflow.db"
    with closing(sqlite3.connect(file)) as connection:
        close_dead_jobs(file)
        connection.execute("CREATE TABLE job (state TEXT, latest_heartbeat TEXT, end_date TEXT)")
        connection.executemany("INSERT INTO job VALUES (?, 'then', NULL)", [("running",), ("success",)])
        connection.commit()
        close_dead_jobs(file)
        assert connection.execute("SELECT state, end_date FROM job").fetchall() == [
            ("failed", "then"),
            ("success", None),
        ]


def test_interrupting_a_start_leaves_nothing(folder):
    starter = subprocess.Popen([sys.executable, "-c", START, str(folder)], stderr=subprocess.DEVNULL)
    clock = threading.Event()
    while not log(folder, "edge").exists():
        assert starter.poll() is None
        clock.wait(0.01)
    starter.send_signal(signal.SIGINT)
    assert starter.wait(30) != 0
    assert status(folder) == {}
    assert not [p for p in psutil.process_iter() if str(folder) in " ".join(_words(p))]


def _words(one: psutil.Process) -> list[str]:
    try:
        return one.cmdline()
    except psutil.Error:
        return []


def test_the_commands_of_the_command_line(folder: Path):
    from typer import Typer
    from typer.testing import CliRunner

    from fedcore.cli import services as room

    app = Typer()
    room.add_to(app)
    runner = CliRunner()
    told = runner.invoke(app, ["up", "--folder", str(folder), "--only", "edge", "--json"])
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout.splitlines()[-1])["edge"].startswith("http://127.0.0.1:")
    again = runner.invoke(app, ["up", "--folder", str(folder), "--only", "edge"])
    assert "stop all of it with" in again.stdout
    assert json.loads(runner.invoke(app, ["status", "--folder", str(folder), "--json"]).stdout)["edge"][
        "running"
    ]
    assert "edge" in runner.invoke(app, ["status", "--folder", str(folder)]).stdout
    assert "stopped: edge" in runner.invoke(app, ["down", "--folder", str(folder)]).stdout
    assert "nothing was running" in runner.invoke(app, ["down", "--folder", str(folder)]).stdout
    assert "nothing was started" in runner.invoke(app, ["status", "--folder", str(folder)]).stdout
