"""Background processes: what is started is found again, stopped with its orphans, and nobody else is."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from fedcore.errors import CorruptState, ServiceError
from fedcore.services import process

WAIT = "import signal, sys; signal.pause()"
STUBBORN = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
)
PARENT = """
import os, subprocess, sys
code = "import os, signal; os.setpgid(0, 0); print('up', flush=True); signal.pause()"
child = subprocess.Popen([sys.executable, "-c", code])
print(child.pid, flush=True)
child.wait()
"""


def launch(folder: Path, code: str, name: str = "thing") -> process.Started:
    return process.start(
        name, [sys.executable, "-c", code], folder / "pids", env=os.environ, log=folder / f"{name}.log"
    )


def until(condition, seconds: float = 20.0) -> None:
    """Wait for a condition of another process, with a deadline."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        os.sched_yield()


def test_a_started_process_is_found_again_by_its_pid_file(tmp_path):
    started = launch(tmp_path, WAIT)
    assert process.recorded(tmp_path / "pids") == {"thing": started}
    assert process.alive(started)
    process.stop([started])
    assert not process.alive(started)


def test_stopping_twice_is_stopping_once(tmp_path):
    started = launch(tmp_path, WAIT)
    process.stop([started])
    process.stop([started])
    assert process.session(started) == []


def test_what_ignores_a_request_to_end_is_killed(tmp_path):
    started = launch(tmp_path, STUBBORN)
    until(lambda: "up" in (tmp_path / "thing.log").read_text())
    process.stop([started], grace_s=0.2)
    assert process.session(started) == []


def test_a_child_in_another_process_group_is_stopped_with_its_parent(tmp_path):
    started = launch(tmp_path, PARENT)
    until(lambda: "up" in (tmp_path / "thing.log").read_text())
    assert len(process.session(started)) == 2
    process.stop([started])
    assert process.session(started) == []


def test_an_orphan_of_a_killed_parent_is_stopped_too(tmp_path):
    started = launch(tmp_path, PARENT)
    until(lambda: "up" in (tmp_path / "thing.log").read_text())
    os.kill(started.pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(started.pid)], timeout=10)
    assert not process.alive(started)
    [orphan] = process.session(started)
    process.kill([started])
    assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE


def test_a_pid_that_belongs_to_somebody_else_now_is_left_alone(tmp_path):
    stranger = subprocess.Popen([sys.executable, "-c", WAIT], start_new_session=True)
    try:
        recycled = process.Started("thing", stranger.pid, psutil.Process(stranger.pid).create_time() - 3600)
        assert not process.alive(recycled)
        process.stop([recycled], grace_s=0.1)
        process.kill([recycled])
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_program_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ServiceError, match="cannot start thing: No such file"):
        process.start("thing", [str(tmp_path / "nothing")], tmp_path / "pids", env={}, log=tmp_path / "log")
    assert list((tmp_path / "pids").iterdir()) == []


@pytest.mark.parametrize(
    "text", ["", "12", '{"pid": 1}', json.dumps({"name": "a", "pid": 1, "created": 0, "more": 1})]
)
def test_a_broken_pid_file_is_named(tmp_path, text):
    (tmp_path / "thing.pid").write_text(text)
    with pytest.raises(CorruptState, match=r"thing\.pid is not a pid file"):
        process.recorded(tmp_path)


def test_no_pid_files_mean_nothing_was_started(tmp_path):
    assert process.recorded(tmp_path / "missing") == {}


def test_an_interruption_while_starting_waits_until_the_pid_file_is_written(tmp_path, monkeypatch):
    real = subprocess.Popen

    def interrupted(*arguments, **options):
        made = real(*arguments, **options)
        os.kill(os.getpid(), signal.SIGINT)  # in the middle: the process is there, its pid file is not
        return made

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    with pytest.raises(KeyboardInterrupt):
        launch(tmp_path, WAIT)
    [started] = process.recorded(tmp_path / "pids").values()
    assert process.alive(started)
    process.stop([started])
