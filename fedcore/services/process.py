"""Background processes with a pid file: start one, see whether it lives, stop it with its orphans.

Each process leads a session of its own. Children may change their process group (Airflow's tasks
do) but not their session, so the session is what is stopped. The pid file also records when the
process started: a pid that the system gave to somebody else later is never signalled.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from fedcore.errors import CorruptState, MissingExtra, ServiceError

try:
    import psutil  # type: ignore[import-untyped]
except ImportError:  # pragma: no cover - every extra that starts services brings psutil
    raise MissingExtra("psutil", "airflow") from None

CLOCK_TOLERANCE_S = 1.0
ENDINGS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Started:
    """A process that was started: its session (= pid of the leader) and its start in Unix seconds."""

    name: str
    pid: int
    created: float

    def write(self, folder: Path) -> None:
        """Put the pid file in place, in one move."""
        target = folder / f"{self.name}.pid"
        partial = target.with_suffix(".tmp")
        partial.write_text(json.dumps(asdict(self)), encoding="utf-8")
        os.replace(partial, target)


def recorded(folder: Path) -> dict[str, Started]:
    """What the pid files in `folder` say, by name; raises `CorruptState` for one that says nothing."""
    found = {}
    for file in sorted(folder.glob("*.pid")):
        try:
            found[file.stem] = Started(**json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            raise CorruptState(
                f"{file} is not a pid file; stop the process by hand and delete the file"
            ) from None
    return found


def start(name: str, command: Sequence[str], folder: Path, *, env: Mapping[str, str], log: Path) -> Started:
    """The process that now runs `command`, in a session of its own, with its output appended to `log`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out, _uninterrupted():
            process = subprocess.Popen(  # pylint: disable=consider-using-with
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=dict(env),
                start_new_session=True,
            )
            process.returncode = 0  # it outlives this program on purpose: no warning when the object goes
            started = Started(name, process.pid, psutil.Process(process.pid).create_time())
            started.write(folder)
    except OSError as error:
        raise ServiceError(
            f"cannot start {name}: {error.strerror} ({error.filename}); see that it exists"
        ) from None
    return started


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """A signal to end that arrives within is delivered afterwards: no process without its pid file."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.signal(number, lambda sent, _: came.append(sent)) for number in ENDINGS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        if came:
            os.kill(os.getpid(), came[0])


def alive(started: Started) -> bool:
    """Whether the process itself (not only an orphan of it) still runs."""
    leader = _leader(started)
    return leader is not None and leader.status() != psutil.STATUS_ZOMBIE


def stop(started: Sequence[Started], *, grace_s: float = 10.0) -> None:
    """Nothing is left of these sessions: asked to end, and killed when `grace_s` seconds are over."""
    members = [process for one in started for process in session(one)]
    _signal(members, signal.SIGTERM)
    psutil.wait_procs(members, timeout=grace_s)
    for one in started:
        while remaining := session(one):  # a dying parent may have started one more
            _signal(remaining, signal.SIGKILL)
            psutil.wait_procs(remaining, timeout=1.0)


def kill(started: Sequence[Started]) -> None:
    """As `stop`, at once and without asking."""
    for one in started:
        while remaining := session(one):
            _signal(remaining, signal.SIGKILL)
            psutil.wait_procs(remaining, timeout=1.0)


def session(started: Started) -> list[psutil.Process]:
    """The living processes of a session: the leader, its children, and orphans when the leader is gone."""
    if psutil.pid_exists(started.pid) and _leader(started) is None:
        return []  # the pid was given to somebody else, so nothing of the session was left by then
    return [process for process in psutil.process_iter() if _belongs(process, started)]


def _leader(started: Started) -> psutil.Process | None:
    try:
        process = psutil.Process(started.pid)
        return process if abs(process.create_time() - started.created) < CLOCK_TOLERANCE_S else None
    except psutil.NoSuchProcess:
        return None


def _belongs(process: psutil.Process, started: Started) -> bool:
    try:
        return (
            os.getsid(process.pid) == started.pid
            and process.create_time() > started.created - CLOCK_TOLERANCE_S
            and process.status() != psutil.STATUS_ZOMBIE
        )
    except (psutil.Error, OSError):
        return False


def _signal(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs `module` with this interpreter."""
    return [sys.executable, "-m", module, *arguments]
