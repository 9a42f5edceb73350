"""The journal and the ledger on PostgreSQL, and on disks that are full or read-only."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import sqlalchemy as sa

from fedcore.coordinator import simulate
from fedcore.errors import BudgetSpent, StorageError
from fedcore.ledger import PrivacyLedger, entries
from fedcore.privacy.accountant import epsilon
from fedcore.privacy.events import GaussianSum
from fedcore.store import Store

EVENT = GaussianSum(noise_multiplier=4.0, sampling_rate=None)
ROUNDS = 6


def as_its_user(*command: object) -> None:
    """Run a PostgreSQL program; it refuses to run as root."""
    prefix = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    subprocess.run([*prefix, *map(str, command)], check=True, capture_output=True, cwd="/")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The address of a PostgreSQL of our own on a free port, without a database name."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = shutil.which("initdb") or (str(found[-1]) if found else None)
    assert initdb, "PostgreSQL is not installed; install the package postgresql"
    bin_folder, folder = Path(initdb).parent, Path(tempfile.mkdtemp(prefix="fedcore-postgres-"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    try:
        as_its_user(bin_folder / "initdb", "-D", folder / "data", "-A", "trust", "-U", "postgres")
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
        as_its_user(
            bin_folder / "pg_ctl", "-D", folder / "data", "-l", folder / "log", "-o", options, "-w", "start"
        )
        yield f"postgresql+psycopg2://postgres@127.0.0.1:{port}"
    finally:
        as_its_user(bin_folder / "pg_ctl", "-D", folder / "data", "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres(postgres_server: str) -> Iterator[str]:
    """The address of a new, empty database."""
    engine = sa.create_engine(f"{postgres_server}/postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE fedcore")
    yield f"{postgres_server}/fedcore"
    with engine.connect() as connection:
        connection.exec_driver_sql("DROP DATABASE fedcore WITH (FORCE)")
    engine.dispose()


@pytest.mark.service
def test_postgres_and_sqlite_end_in_the_same_model(new_workdir, settings, postgres):
    embedded = simulate(settings(), new_workdir("embedded"), "a")
    served = simulate(settings(f"store.url={postgres}"), new_workdir("served"), "a")
    assert served.model_sha256 == embedded.model_sha256
    assert not (served.model_dir.parents[2] / "journal.db").exists()


def spend(where: tuple[str, str | None], run: str) -> int:
    """How many rounds a process of its own could charge to the one account."""
    charged = 0
    with Store.at(Path(where[0]), where[1]) as store:
        limit = epsilon([EVENT] * ROUNDS, 1e-5) * 1.0001
        ledger = PrivacyLedger(store, "population@v1", limit=limit, delta=1e-5)
        for number in range(ROUNDS):
            try:
                ledger.reserve(run, number, EVENT)
                charged += 1
            except BudgetSpent:
                break
    return charged


def race(where: tuple[str, str | None]) -> None:
    with Store.at(Path(where[0]), where[1]):
        pass
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        charged = list(pool.map(spend, [where, where], ["a", "b"]))
    with Store.at(Path(where[0])) as store:
        assert sum(charged) == ROUNDS == sum(entry["kind"] == "reserve" for entry in entries(store))


@pytest.mark.slow
def test_two_processes_cannot_overspend_one_account_on_sqlite(tmp_path):
    race((str(tmp_path), None))


@pytest.mark.service
def test_two_processes_cannot_overspend_one_account_on_postgres(tmp_path, postgres):
    race((str(tmp_path), postgres))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 kB; skipped where this user may not mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this user may not mount a file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_named_and_the_run_goes_on_once_there_is_room(new_workdir, settings, small_disk):
    calm = simulate(settings("run.rounds=20"), new_workdir("calm"), "a")
    data = new_workdir("data") / "data"
    where = {"sites": data / "sites", "checks": data / "checks" / "checks.json"}
    with pytest.raises(StorageError, match=r"full|space"):
        simulate(settings("run.rounds=20"), small_disk, "a", **where)
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert simulate(settings("run.rounds=20"), small_disk, "a", **where).model_sha256 == calm.model_sha256


def test_a_read_only_folder_is_named(settings, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StorageError, match="Read-only file system"):
        simulate(settings(), small_disk / "runs", "a")
