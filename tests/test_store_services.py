"""The journal and the ledger on PostgreSQL, and on disks that are full or read-only."""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
import sqlalchemy as sa

from fedcore.coordinator import simulate
from fedcore.errors import BudgetSpent, CorruptState, StorageError
from fedcore.ledger import PrivacyLedger, entries, spending, verified
from fedcore.privacy.accountant import epsilon
from fedcore.privacy.events import GaussianSum, event_from_json
from fedcore.store import Store

EVENT = GaussianSum(noise_multiplier=4.0, sampling_rate=None)
ROUNDS = 6
MANY = 25
LIMIT = epsilon([EVENT] * MANY, 1e-5) * 1.0001
SHARED = (
    "run.rounds=30",
    "data.partition.clients=4",
    "model.hidden=[8]",
    "tracking.enabled=false",
    "privacy.mode=central",
    "privacy.noise_multiplier=4",
    "privacy.delta=0.01",
    "privacy.epsilon=3",
    "privacy.max_noise_ratio=1e6",
    "combine.weights=equal",
)


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


def spend_wildly(where: tuple[str, str | None], run: str, start: Barrier, seed: int) -> None:
    """Charge, settle, retry and look in a random order, as often as the one account allows."""
    chance, charged, settled = random.Random(seed), 0, 0
    with Store.at(Path(where[0]), where[1]) as store:
        ledger = PrivacyLedger(store, "population@v1", limit=LIMIT, delta=1e-5, identity=run)
        start.wait()
        while True:
            act = chance.choice(["reserve", "reserve", "settle", "retry", "look"])
            if act == "reserve":
                try:
                    assert ledger.reserve(run, charged, EVENT) <= LIMIT
                    charged += 1
                except BudgetSpent:
                    return
            elif act == "settle" and settled < charged:
                ledger.settle(run, settled, EVENT)
                settled += 1
            elif act == "retry" and settled < charged:
                ledger.reserve(run, chance.randrange(settled, charged), EVENT)
            else:
                ledger.affords(run, charged, EVENT)


def race_wildly(where: tuple[str, str | None]) -> None:
    """Two processes that begin together: not one round more than the account pays, each charged once."""
    with Store.at(Path(where[0]), where[1]):
        pass
    context = get_context("spawn")
    start = context.Barrier(2)
    both = [
        context.Process(target=spend_wildly, args=(where, run, start, seed))
        for seed, run in enumerate(["a", "b"])
    ]
    for process in both:
        process.start()
    for process in both:
        process.join(200)
    assert [process.exitcode for process in both] == [0, 0]
    with Store.at(Path(where[0])) as store:
        found = entries(store)
    charges = [(entry["run"], entry["round"]) for entry in found if entry["kind"] == "reserve"]
    assert len(charges) == len(set(charges)) == MANY
    assert max(entry["body"]["epsilon"] for entry in found if entry["kind"] == "reserve") <= LIMIT
    assert sum(entry["kind"] == "open" for entry in found) == 1


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


@pytest.mark.slow
def test_many_rounds_of_two_processes_in_any_order_on_sqlite(tmp_path):
    race_wildly((str(tmp_path), None))


@pytest.mark.service
def test_many_rounds_of_two_processes_in_any_order_on_postgres(tmp_path, postgres):
    race_wildly((str(tmp_path), postgres))


@pytest.mark.service
@pytest.mark.parametrize(
    "statement", ["UPDATE ledger SET round = 7", "DELETE FROM ledger", "TRUNCATE ledger"]
)
def test_postgres_itself_refuses_to_change_an_entry(tmp_path, postgres, statement):
    with Store.at(tmp_path, postgres) as store:
        ledger = PrivacyLedger(store, "population@v1", limit=9.0, delta=1e-5)
        ledger.reserve("a", 0, EVENT)
        with pytest.raises(sa.exc.DatabaseError, match="append-only"), store.engine.begin() as connection:
            connection.exec_driver_sql(statement)
        with store.engine.begin() as connection:
            connection.exec_driver_sql("DROP TRIGGER ledger_no_change ON ledger")
            connection.exec_driver_sql("UPDATE ledger SET run = 'b' WHERE sequence = 1")
        with pytest.raises(CorruptState, match="chain breaks at entry 1"):
            ledger.reserve("a", 1, EVENT)


@pytest.mark.service
def test_a_lock_on_postgres_that_is_not_let_go_ends_in_a_sentence(tmp_path, postgres, monkeypatch):
    monkeypatch.setattr("fedcore.ledger.chain.LOCK_WAIT_S", 0.1)
    with Store.at(tmp_path, postgres) as store, Store.at(tmp_path) as other:
        with other.engine.begin() as connection:
            connection.exec_driver_sql("LOCK TABLE ledger IN EXCLUSIVE MODE")
            ledger = PrivacyLedger(store, "population@v1", limit=9.0, delta=1e-5)
            with pytest.raises(StorageError, match="held by another process .*lock timeout"):
                ledger.reserve("a", 0, EVENT)
        assert ledger.reserve("a", 0, EVENT) > 0


def command(root: Path, workdir: Path, run: str, *words: str) -> list[str]:
    """What a process of its own is started with: the command line, or a loop over an Airflow-like `advance`."""
    options = [word for setting in SHARED for word in ("--set", setting)]
    main = "from fedcore.cli import main; main()"
    place = ["--run", run, "--workdir", str(workdir)]
    return [sys.executable, "-c", main, "simulate", "--preset", "digits", "--json", *place, *options]


STEP_BY_STEP = """
import json, sys
from pathlib import Path
from fedcore.config import load_config
from fedcore.coordinator import STEPS, advance, finish, open_run
place, settings = Path(sys.argv[1]), sys.argv[2:]
open_run(load_config(Path("params.yaml"), preset="digits", overrides=settings), place, "tasks")
number, facts = 0, {"done": False}
while not facts["done"]:
    for step in STEPS:
        facts = advance(place, "tasks", number, step)
        if facts.get("done"):
            break
    number += 1
finish(place, "tasks")
print(json.dumps(facts))
"""


def share(root: Path, workdir: Path, url: str | None) -> None:
    """Two simulations and a training task by task at once, on one store and one account."""
    with Store.at(workdir, url):
        pass
    runs = {
        "one": command(root, workdir, "one"),
        "two": command(root, workdir, "two"),
        "tasks": [sys.executable, "-c", STEP_BY_STEP, str(workdir), *SHARED],
    }
    started = {
        run: subprocess.Popen(words, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for run, words in runs.items()
    }
    ended = {run: (*process.communicate(timeout=250), process.returncode) for run, process in started.items()}
    with Store.at(workdir) as store:
        (account,) = spending(verified(store))
        rounds = {run: len(store.rounds(run)) for run in store.runs()}
    for run, (out, err, code) in ended.items():
        if rounds.get(run):
            assert code == 0, err
            assert "privacy budget spent" in json.loads(out.splitlines()[-1])["stopped"]
        else:
            assert (code in (1, 4), "privacy budget spent" in err) == (True, True), err
    assert account.spent <= account.limit
    assert {run.run: run.charged for run in account.runs} == {run: n for run, n in rounds.items() if n}
    assert all(run.released == run.charged for run in account.runs)
    event = event_from_json(verified_events(workdir)[0])
    total = sum(run.charged for run in account.runs)
    assert epsilon([event] * total, 0.01) == pytest.approx(account.spent, rel=1e-3)
    assert epsilon([event] * (total + 1), 0.01) > account.limit, "what could be spent was spent"


def verified_events(workdir: Path) -> list[dict[str, object]]:
    with Store.at(workdir) as store:
        return [entry["body"]["event"] for entry in entries(store) if entry["kind"] == "reserve"]


@pytest.mark.slow
def test_a_ledger_is_shared_by_three_trainings_at_once_on_sqlite(new_workdir, root):
    share(root, new_workdir("shared"), None)


@pytest.mark.service
def test_a_ledger_is_shared_by_three_trainings_at_once_on_postgres(new_workdir, root, postgres):
    share(root, new_workdir("shared"), postgres)


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
