"""What a crash cannot lose: the journal (SQL) and the blobs (fsspec).

A step's arrays go into one safetensors blob under a name fixed by (run, round, step), in one
move, its facts inside; then a row with the blob's digest commits the step. A blob without a row
is a step that was killed between the two: it is adopted, not computed again. Everything read
back is checked against its digest; what does not match is named and never made anew.
"""

import fcntl
import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from fedcore.blobs import Blobs, sweep, write_whole
from fedcore.database import explained, open_engine, shown
from fedcore.errors import CorruptState, RunBusy, StorageError
from fedcore.state import Outcome
from fedcore.types import Json, Reply, canonical_json

METADATA = sa.MetaData()
META = sa.Table(
    "meta", METADATA, sa.Column("key", sa.String(50), primary_key=True), sa.Column("value", sa.Text)
)
RUNS = sa.Table(
    "runs",
    METADATA,
    sa.Column("run", sa.String(100), primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("notes", sa.Text, nullable=False),  # what may change between executions: paths, tracking ids
)
STEPS = sa.Table(
    "steps",
    METADATA,
    sa.Column("run", sa.String(100), primary_key=True),
    sa.Column("round", sa.Integer, primary_key=True),
    sa.Column("step", sa.String(140), primary_key=True),
    sa.Column("facts", sa.Text, nullable=False),
    sa.Column("blob", sa.String(64)),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("committed_at", sa.Float, nullable=False),
)
VERSION = "2"
ONE_MAKER = 0x66656463  # PostgreSQL's advisory lock of who makes the tables


class Store:
    """The journal and blobs of one work directory; close it after use."""

    def __init__(self, workdir: Path, url: str | None = None, blobs: str | None = None) -> None:
        self.workdir = workdir
        _writable(workdir)
        self._blobs = Blobs(blobs or str(workdir / "blobs"))
        if url is None:
            _create_sqlite(workdir / "journal.db", self._blobs)
        self.url = url or f"sqlite:///{workdir / 'journal.db'}"
        try:
            self.engine = open_engine(self.url)
            with self.engine.begin() as connection:
                _create_missing(connection)
                self.identity = _check(connection, self.url, may_be_new=url is not None)
        except (sa.exc.DatabaseError, sa.exc.ArgumentError) as error:
            raise explained(error, shown(self.url)) from None

    @classmethod
    @contextmanager
    def at(cls, workdir: Path, url: str | None = None, blobs: str | None = None) -> Iterator["Store"]:
        """The store of a work directory, closed afterwards.

        Addresses given once are remembered in ``store.json`` (readable by its owner alone, as they
        may hold a password), so that later calls need only the work directory.
        """
        place = workdir / "store.json"
        if url or blobs:
            _writable(workdir)
            write_whole(place, canonical_json({"url": url, "blobs": blobs}).encode(), mode=0o600)
        elif place.exists():
            try:
                kept = json.loads(place.read_text())
                url, blobs = kept["url"], kept["blobs"]
            except (ValueError, KeyError, TypeError):
                raise CorruptState(f"{place} does not hold store addresses; give store.url again") from None
        store = cls(workdir, url, blobs)
        try:
            yield store
        finally:
            store.close()

    def close(self) -> None:
        """Release the database."""
        self.engine.dispose()

    @contextmanager
    def lock(self, run: str) -> Iterator[None]:
        """Hold the run for this process; the system lets go when the process dies. Raises `RunBusy`."""
        folder = self.workdir / "runs" / run
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                raise RunBusy(
                    f"run {run} is being worked on by process {file.read().strip() or 'unknown'}; "
                    "wait for it, stop it, or choose another --run"
                ) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            sweep(self.workdir, folder, *self._blobs.local_folders(run))
            yield

    def run(self, run: str) -> tuple[dict[str, Json], dict[str, Json]] | None:
        """What the run is (never changes) and notes on it (may), or None if there is no such run."""
        with self.reading() as connection:
            row = connection.execute(sa.select(RUNS).where(RUNS.c.run == run)).one_or_none()
        if row is None:
            return None
        if hashlib.sha256(row.body.encode()).hexdigest() != row.sha256:
            raise CorruptState(
                f"journal {shown(self.url)}: run {run} does not match its digest; restore the journal from a copy"
            )
        return json.loads(row.body), json.loads(row.notes)

    def runs(self) -> list[str]:
        """Names of all runs, sorted."""
        with self.reading() as connection:
            return list(connection.execute(sa.select(RUNS.c.run).order_by(RUNS.c.run)).scalars())

    def create_run(self, run: str, body: Mapping[str, Json], notes: Mapping[str, Json]) -> None:
        """Enter a run that is not there yet."""
        text = canonical_json(body)
        row = {
            "run": run,
            "body": text,
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "notes": canonical_json(notes),
        }
        with self.writing() as connection:
            connection.execute(sa.insert(RUNS).values(**row))

    def note(self, run: str, **notes: Json) -> None:
        """Add to the notes of a run."""
        with self.writing() as connection:
            old = connection.execute(sa.select(RUNS.c.notes).where(RUNS.c.run == run)).scalar_one()
            merged = canonical_json({**json.loads(old), **notes})
            connection.execute(sa.update(RUNS).where(RUNS.c.run == run).values(notes=merged))

    def rounds(self, run: str, step: str = "record") -> list[int]:
        """Rounds of which `step` is committed, ascending."""
        query = (
            sa.select(STEPS.c.round).where(STEPS.c.run == run, STEPS.c.step == step).order_by(STEPS.c.round)
        )
        with self.reading() as connection:
            return list(connection.execute(query).scalars())

    def journal(self, run: str, round_number: int) -> "Journal":
        """The journal of one round."""
        return Journal(self, run, round_number)

    def read(self, run: str, round_number: int, step: str) -> tuple[Outcome, float, float] | None:
        """Outcome, seconds and commit time of a step, checked; None if it is not committed."""
        with self.reading() as connection:
            row = connection.execute(sa.select(STEPS).where(*_key(run, round_number, step))).one_or_none()
        if row is None:
            return None
        if _digest(row.facts, row.blob) != row.sha256:
            raise CorruptState(
                f"journal {shown(self.url)}: step {step} of run {run}, round {round_number} does not match its digest; "
                "restore the journal from a copy"
            )
        arrays = self._blobs.read(_blob_name(run, round_number, step), row.blob)[1] if row.blob else {}
        return Outcome(json.loads(row.facts), arrays), row.seconds, row.committed_at

    def write(self, run: str, round_number: int, step: str, outcome: Outcome, seconds: float) -> None:
        """Commit a step: first its blob, then its row. A step already committed stays as it is."""
        if step not in self.steps(run, round_number, step):
            self.write_all(run, round_number, {step: (outcome, seconds)})

    def write_all(self, run: str, round_number: int, steps: Mapping[str, tuple[Outcome, float]]) -> None:
        """Commit steps with their seconds together: first their blobs, then their rows in one transaction."""
        rows = []
        for step, (outcome, seconds) in steps.items():
            facts, name = canonical_json(outcome.facts), _blob_name(run, round_number, step)
            blob = self._blobs.write(name, facts, outcome.arrays) if outcome.arrays else None
            rows.append(_row(run, round_number, step, facts, blob, seconds))
        self._commit(rows)

    def adopt(self, run: str, round_number: int, step: str) -> bool:
        """Commit a step whose blob is there without its row; whether there was one."""
        found = self._blobs.find(_blob_name(run, round_number, step))
        if found is None:
            return False
        facts, _ = self._blobs.read(_blob_name(run, round_number, step), found)
        self._commit([_row(run, round_number, step, facts, found, 0.0)])
        return True

    def steps(self, run: str, round_number: int, prefix: str = "") -> dict[str, float]:
        """Committed steps of a round whose names start with `prefix`, and the seconds each took."""
        query = sa.select(STEPS.c.step, STEPS.c.seconds).where(
            STEPS.c.run == run,
            STEPS.c.round == round_number,
            STEPS.c.step.startswith(prefix, autoescape=True),
        )
        with self.reading() as connection:
            return {row.step: row.seconds for row in connection.execute(query.order_by(STEPS.c.step))}

    def _commit(self, rows: Sequence[Mapping[str, Json]]) -> None:
        """Enter the rows of one round that are not there yet."""
        where = STEPS.c.run == rows[0]["run"], STEPS.c.round == rows[0]["round"]
        with self.writing() as connection:
            there = set(connection.execute(sa.select(STEPS.c.step).where(*where)).scalars())
            if missing := [row for row in rows if row["step"] not in there]:
                connection.execute(sa.insert(STEPS), missing)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection to read with. Raises `StorageError` for what the database says."""
        try:
            with self.engine.connect() as connection:
                yield connection
        except sa.exc.DatabaseError as error:
            raise explained(error, shown(self.url)) from None

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that is committed whole or not at all. Raises `StorageError`."""
        try:
            with self.engine.begin() as connection:
                yield connection
        except sa.exc.DatabaseError as error:
            raise explained(error, shown(self.url)) from None


class Journal:
    """One round's part of the store: see `fedcore.round.RoundJournal`."""

    def __init__(self, store: Store, run: str, round_number: int) -> None:
        self._store, self._run, self._round = store, run, round_number
        self._replies: dict[str, Reply] = {}
        self._others: dict[int, Journal] = {}

    def once(self, step: str, compute: Callable[[], Outcome]) -> Outcome:
        """The committed outcome, the one left by a killed execution, or a new one."""
        kept = self.kept(step)
        if kept is None and self._store.adopt(self._run, self._round, step):
            kept = self.kept(step)
        if kept is None:
            start = time.monotonic()
            self._store.write(self._run, self._round, step, compute(), time.monotonic() - start)
            kept = self.kept(step)
        assert kept is not None, "a step just committed can be read"
        return kept

    def kept(self, step: str) -> Outcome | None:
        """The committed outcome of a step, or None."""
        found = self._store.read(self._run, self._round, step)
        return found[0] if found else None

    def replies(self) -> Mapping[str, Reply]:
        """Replies kept so far, by client."""
        for step in self._store.steps(self._run, self._round, "reply/"):
            self.reply(step.removeprefix("reply/"))
        return self._replies

    def reply(self, client: str) -> Reply | None:
        """The reply of one client, if it is kept."""
        if client not in self._replies and (outcome := self.kept(f"reply/{client}")) is not None:
            facts, update = outcome.facts, outcome.arrays.get("update")
            belongs = facts.get("round"), facts.get("model_sha256")
            self._replies[client] = Reply(client, facts["facts"], update, facts["error"], *belongs)
        return self._replies.get(client)

    def at(self, round_number: int) -> "Journal":
        """The journal of another round of the same run."""
        if round_number not in self._others:
            self._others[round_number] = Journal(self._store, self._run, round_number)
        return self._others[round_number]

    def keep(self, reply: Reply) -> None:
        """Keep a reply; the first one of a client counts."""
        arrays = {} if reply.vector is None else {"update": reply.vector}
        facts: dict[str, Json] = {"facts": dict(reply.facts), "error": reply.error}
        facts |= {"round": reply.round, "model_sha256": reply.model_sha256}
        outcome = Outcome(facts, arrays)
        self._store.write(
            self._run, self._round, f"reply/{reply.client}", outcome, float(reply.facts.get("seconds", 0))
        )

    def mark(self, step: str) -> None:
        """Commit a step that leaves nothing but that it was done."""
        self._store.write(self._run, self._round, step, Outcome({}), 0.0)

    def seconds(self) -> Mapping[str, float]:
        """Wall time of each step committed so far."""
        steps = self._store.steps(self._run, self._round)
        return {step: seconds for step, seconds in steps.items() if "/" not in step}

    def committed_at(self, step: str) -> float:
        """Unix time at which a step was committed."""
        found = self._store.read(self._run, self._round, step)
        assert found is not None, "asked only for committed steps"
        return found[2]


def _blob_name(run: str, round_number: int, step: str) -> str:
    """Path of a blob. A reply's name is hashed: a client's name never becomes a path."""
    leaf = f"reply-{hashlib.sha256(step.encode()).hexdigest()[:32]}" if "/" in step else step
    return f"{run}/r{round_number:05d}/{leaf}.safetensors"


def _digest(facts: str, blob: str | None) -> str:
    return hashlib.sha256(f"{facts}\n{blob or ''}".encode()).hexdigest()


def _row(run: str, number: int, step: str, facts: str, blob: str | None, seconds: float) -> dict[str, Json]:
    row = {"run": run, "round": number, "step": step, "facts": facts, "blob": blob}
    return row | {"sha256": _digest(facts, blob), "seconds": seconds, "committed_at": time.time()}


def _key(run: str, round_number: int, step: str) -> tuple[sa.ColumnElement[bool], ...]:
    return (STEPS.c.run == run, STEPS.c.round == round_number, STEPS.c.step == step)


def _writable(folder: Path) -> None:
    """Raise `StorageError` unless a file can be written into `folder`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{secrets.token_hex(8)}.{os.getpid()}.part"
        write_whole(probe, b"x" * 4096)
        probe.unlink()
    except OSError as error:
        raise StorageError(
            f"cannot write to {folder}: {error.strerror}; free space or choose another --workdir"
        ) from None


def _create_sqlite(path: Path, blobs: Blobs) -> None:
    """Make a new journal in one move. Never over an existing one, nor beside blobs it would not know."""
    if path.exists():
        if path.stat().st_size == 0:
            raise CorruptState(f"journal {path} is empty; restore it from a copy or choose another --workdir")
        return
    if not blobs.empty():
        raise CorruptState(
            f"journal {path} is missing but {blobs.address} holds runs; restore it or choose another --workdir"
        )
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        engine = sa.create_engine(f"sqlite:///{temporary}")
        METADATA.create_all(engine)
        with engine.begin() as connection:
            _check(connection, str(engine.url), may_be_new=True)
        engine.dispose()
        try:
            os.link(temporary, path)
        except FileExistsError:
            return  # another process was first; its journal counts
    except sa.exc.DatabaseError as error:
        raise explained(error, str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


def _create_missing(connection: sa.Connection) -> None:
    """Make the tables that are not there, with their triggers, in one transaction; one process at a time."""
    present = set(sa.inspect(connection).get_table_names())
    if METADATA.tables.keys() <= present:
        return
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({ONE_MAKER})")
    else:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    METADATA.create_all(connection)


def _check(connection: sa.Connection, url: str, *, may_be_new: bool) -> str:
    """The journal's identity. Refuses a journal that is damaged or of another version."""
    if connection.dialect.name == "sqlite":
        verdict = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
        if verdict != "ok":
            raise CorruptState(f"journal {shown(url)} is damaged ({verdict}); restore it from a copy")
    meta: dict[str, str] = {row.key: row.value for row in connection.execute(sa.select(META))}
    if not meta and may_be_new:
        meta = {"version": VERSION, "identity": secrets.token_hex(16)}
        connection.execute(sa.insert(META), [{"key": key, "value": value} for key, value in meta.items()])
    if meta.get("version") != VERSION:
        raise CorruptState(
            f"journal {shown(url)} has version {meta.get('version')}, this fedcore reads {VERSION}; "
            "use the fedcore that wrote it"
        )
    return meta["identity"]
