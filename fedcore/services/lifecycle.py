"""Start, wait for and stop the services of a folder.

The folder holds ``services/{pids,logs,airflow,ports.json}`` beside the work of the runs. Only one
`up` works in a folder at a time; what it started it stops again when it cannot finish.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from fedcore.errors import ServiceError, UnknownName
from fedcore.services import process, settings
from fedcore.services.folder import database, log, only_one, pids, read_ports, write_ports
from fedcore.services.health import choose_port
from fedcore.services.parts import GROUPS, Options, Service, address, group_of, plan

Progress = Callable[[str], None]
EVERYTHING = Options()


@dataclass(frozen=True)
class Endpoints:
    """Addresses of what runs (None: not started), and where Airflow's user and password are."""

    mlflow: str | None
    airflow: str | None
    edge: str | None
    airflow_user: str
    airflow_password_file: str


def up(folder: Path, options: Options = EVERYTHING, progress: Progress = lambda line: None) -> Endpoints:
    """Addresses of the services of `folder`, all of them answering.

    Raises `ServiceError` for a taken port, a service that ends or does not answer in time; then
    nothing that this call started is left.
    """
    folder = folder.resolve()
    for name in {*options.services, *options.ports} - set(GROUPS):
        raise UnknownName("service", name, GROUPS)
    with only_one(folder):
        running = _tidy(folder)
        ports = _ports(folder, options, {group_of(name) for name in running})
        services = plan(folder, ports, options)
        try:
            _bring_up(folder, services, running, progress, time.monotonic() + options.timeout_s)
        except BaseException:
            started = {n: one for n, one in process.recorded(pids(folder)).items() if n not in running}
            process.stop(list(started.values()))
            _forget(folder, started)
            raise
        return _endpoints(folder, ports)


def down(folder: Path, *, grace_s: float = 10.0) -> list[str]:
    """Names of what was stopped; afterwards no process of the folder's services is left."""
    started = process.recorded(pids(folder.resolve()))
    stopped = [name for name, one in started.items() if process.session(one)]
    process.stop(list(started.values()), grace_s=grace_s)
    _forget(folder.resolve(), started)
    return stopped


def status(folder: Path) -> dict[str, dict[str, object]]:
    """For each service of the folder: whether it runs, its pid, its address and its log."""
    folder = folder.resolve()
    ports = read_ports(folder)
    return {
        name: {
            "running": process.alive(one),
            "pid": one.pid,
            "url": address(ports[group_of(name)]) if group_of(name) in ports else None,
            "log": str(log(folder, name)),
        }
        for name, one in process.recorded(pids(folder)).items()
    }


def endpoints(folder: Path) -> Endpoints:
    """Addresses of the services that run in `folder` now."""
    folder = folder.resolve()
    running = {group_of(n) for n, one in process.recorded(pids(folder)).items() if process.alive(one)}
    return _endpoints(folder, {name: port for name, port in read_ports(folder).items() if name in running})


def close_dead_jobs(file: Path) -> None:
    """Tell Airflow's database that the processes of last time are gone, so that their tasks run at once.

    Airflow would notice by itself after minutes of silence. Only called while none of them lives.
    A database without jobs is left as it is.
    """
    with closing(sqlite3.connect(file, timeout=60)) as connection, suppress(sqlite3.OperationalError):
        connection.execute(
            "UPDATE job SET state = 'failed', end_date = latest_heartbeat WHERE state = 'running'"
        )
        connection.commit()


def _tidy(folder: Path) -> dict[str, process.Started]:
    """What runs already; orphans of what was killed are stopped, and Airflow told of its losses."""
    recorded = process.recorded(pids(folder))
    running = {name: one for name, one in recorded.items() if process.alive(one)}
    dead = {name: one for name, one in recorded.items() if name not in running}
    process.kill(list(dead.values()))
    _forget(folder, dead)
    if database(folder).exists() and not any(group_of(name) == "airflow" for name in running):
        close_dead_jobs(database(folder))
    return running


def _bring_up(
    folder: Path,
    services: list[Service],
    running: Mapping[str, process.Started],
    progress: Progress,
    deadline: float,
) -> None:
    """Start each service when what it needs is ready, until all are."""
    waiting, ready, clock, begin = list(services), set[str](), threading.Event(), time.monotonic()
    known = dict(running)
    while waiting:
        for service in [one for one in waiting if ready.issuperset(one.needs)]:
            if service.name not in known:
                known[service.name] = _start(folder, service)
            if _is_ready(folder, service, known[service.name], deadline):
                waiting.remove(service)
                ready.add(service.name)
                progress(f"{service.name} is ready after {time.monotonic() - begin:.0f} s")
        clock.wait(0.1)


def _is_ready(folder: Path, service: Service, known: process.Started, deadline: float) -> bool:
    """Whether the service answers; raises `ServiceError` when it ended or the time is over."""
    missing = service.ready(known.created)
    if missing is None:
        return True
    if not process.alive(known) and service.ready(known.created) is not None:
        raise ServiceError(f"{service.name} ended while starting: {_last_words(log(folder, service.name))}")
    if time.monotonic() > deadline:
        raise ServiceError(f"{service.name} is not ready in time: {missing}; see {log(folder, service.name)}")
    return False


def _start(folder: Path, service: Service) -> process.Started:
    environment, output = settings.environment(folder), log(folder, service.name)
    return process.start(service.name, service.command, pids(folder), env=environment, log=output)


def _last_words(file: Path) -> str:
    lines = file.read_text(encoding="utf-8", errors="replace").strip().splitlines() if file.exists() else []
    return f"{lines[-1][:300] if lines else 'it said nothing'}; see {file}"


def _forget(folder: Path, started: Mapping[str, process.Started]) -> None:
    for name in started:
        (pids(folder) / f"{name}.pid").unlink(missing_ok=True)


def _endpoints(folder: Path, ports: Mapping[str, int]) -> Endpoints:
    urls = {name: address(ports[name]) if name in ports else None for name in GROUPS}
    password = str(settings.password_file(folder))
    return Endpoints(**urls, airflow_user=settings.AIRFLOW_USER, airflow_password_file=password)


def _ports(folder: Path, options: Options, running: set[str]) -> dict[str, int]:
    """A port for each service: the one it runs on, else as `choose_port` says; kept for next time."""
    before, ports = read_ports(folder), dict[str, int]()
    for name in GROUPS:
        if name in options.services:
            asked = options.ports.get(name)
            ports[name] = before[name] if name in running else choose_port(name, asked, before.get(name))
    write_ports(folder, before | ports)
    return ports
