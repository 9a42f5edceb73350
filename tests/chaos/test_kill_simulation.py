"""A simulated run is killed at random moments, as a power cut would, and ends in the undisturbed bytes."""

import hashlib
import json
import random
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest

from fedcore.ledger import entries
from fedcore.store import Store

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(600)]
KILLS = 10
SETTINGS = [
    "run.rounds=30",
    "data.partition.clients=4",
    "tracking.enabled=false",
    "privacy.mode=central",
    "privacy.noise=seeded",
    "privacy.noise_multiplier=4",
    "privacy.delta=0.01",
    "privacy.epsilon=100",
    "privacy.max_noise_ratio=1e6",
    "combine.weights=equal",
]


def start(workdir: Path, root: Path) -> subprocess.Popen[bytes]:
    options = [word for setting in SETTINGS for word in ("--set", setting)]
    command = [sys.executable, "-c", "from fedcore.cli import main; main()", "simulate", "--preset", "digits"]
    with (workdir.parent / f"{workdir.name}.log").open("ab") as log:
        return subprocess.Popen(
            [*command, "--workdir", str(workdir), *options], cwd=root, stdout=log, stderr=log
        )


def everything(workdir: Path) -> dict[str, str]:
    folder = workdir / "runs" / "digits"
    files = [*sorted((folder / "model").iterdir()), folder / "records.jsonl"]
    found = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
    with Store.at(workdir) as store:
        told = [{k: e[k] for k in ("account", "kind", "run", "round", "body")} for e in entries(store)]
        return found | {"ledger": json.dumps(told)}


def committed(workdir: Path) -> int:
    """Steps in the run's journal; none before there is one."""
    journal = workdir / "journal.db"
    if not journal.exists():
        return 0
    with closing(sqlite3.connect(journal, timeout=60)) as connection:
        return connection.execute("SELECT COUNT(*) FROM steps").fetchone()[0]


def kill_after(process: subprocess.Popen[bytes], workdir: Path, steps: int, seconds: float) -> None:
    """SIGKILL the process some seconds after its journal has grown by `steps`."""
    enough = committed(workdir) + steps
    while committed(workdir) < enough:
        assert process.poll() is None, "the run was over before it could be killed"
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=seconds)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_ten_kills_at_seeded_moments_change_nothing(new_workdir, root):
    calm, wild = new_workdir("calm"), new_workdir("wild")
    assert start(calm, root).wait() == 0
    moments = random.Random(20261123)
    for _ in range(KILLS):
        kill_after(start(wild, root), wild, moments.randint(1, 6), moments.uniform(0, 0.05))
    assert start(wild, root).wait() == 0
    assert everything(wild) == everything(calm)
