"""The entries: one table, append-only in the database itself, each entry holding the hash of the one before.

The hash is SHA-256 over the entry's canonical JSON. Triggers refuse to change or delete an entry;
who may drop the triggers still breaks the chain, and who cuts its tail off changes its head.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Any, NamedTuple

import sqlalchemy as sa

from fedcore.errors import CorruptState
from fedcore.store import METADATA, Store
from fedcore.types import Json, canonical_json

LEDGER = sa.Table(
    "ledger",
    METADATA,
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("account", sa.String(200), nullable=False),
    sa.Column("kind", sa.String(10), nullable=False),
    sa.Column("run", sa.String(100)),  # this and the next two: of charges, not of what the account is
    sa.Column("identity", sa.String(100)),
    sa.Column("round", sa.Integer),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("previous", sa.String(64), nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.UniqueConstraint("account", "identity", "round", "kind"),
)
GENESIS = "0" * 64
LOCK_WAIT_S = 60
_ONLY = "the privacy ledger is append-only"


def _in_the_database(dialect: str, *statements: str) -> None:
    for statement in statements:
        made = sa.DDL(statement).execute_if(dialect=dialect)  # type: ignore[no-untyped-call]
        sa.event.listen(LEDGER, "after_create", made)


_in_the_database(
    "sqlite",
    *(
        f"CREATE TRIGGER ledger_no_{act.lower()} BEFORE {act} ON ledger BEGIN SELECT RAISE(ABORT, '{_ONLY}'); END"
        for act in ("UPDATE", "DELETE")
    ),
)
_in_the_database(
    "postgresql",
    "CREATE OR REPLACE FUNCTION ledger_only_grows() RETURNS trigger LANGUAGE plpgsql "
    f"AS $$ BEGIN RAISE EXCEPTION '{_ONLY}'; END $$",
    "CREATE TRIGGER ledger_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger "
    "FOR EACH STATEMENT EXECUTE FUNCTION ledger_only_grows()",
)


class Entry(NamedTuple):
    """One line of the ledger. `run`, `identity` and `round` are None where an account is opened or raised."""

    sequence: int
    account: str
    kind: str
    run: str | None
    identity: str | None
    round: int | None
    body: Json
    previous: str
    sha256: str = ""

    def hashed(self) -> "Entry":
        """The entry with the hash of everything else in it."""
        facts = {name: value for name, value in self._asdict().items() if name != "sha256"}
        return self._replace(sha256=hashlib.sha256(canonical_json(facts).encode()).hexdigest())


class Mark(NamedTuple):
    """A place in the chain: how many entries lie before it, and the hash of the last of them."""

    length: int = 0
    head: str = GENESIS


def entries(store: Store) -> list[dict[str, Any]]:
    """All entries of all accounts in order, as JSON values, the chain verified. Raises `CorruptState`."""
    return [entry._asdict() for entry in verified(store)]


def verified(store: Store) -> list[Entry]:
    """All entries of all accounts in order, the chain verified from its start. Raises `CorruptState`."""
    with store.reading() as connection:
        return after(connection, Mark())


def after(connection: sa.Connection, mark: Mark) -> list[Entry]:
    """The entries after `mark`, verified; the one before it must still be the same. Raises `CorruptState`."""
    rows = connection.execute(
        sa.select(LEDGER).where(LEDGER.c.sequence >= mark.length - 1).order_by(LEDGER.c.sequence)
    )
    found = [_read(row) for row in rows]
    if mark.length:
        if not found or found[0].sequence != mark.length - 1 or found[0].sha256 != mark.head:
            raise _broken(mark.length - 1, "it is not what this process read there before")
        _verify(found[:1], Mark(mark.length - 1, found[0].previous))
        found = found[1:]
    _verify(found, mark)
    return found


def moved(mark: Mark, read: list[Entry]) -> Mark:
    """The mark after the entries read."""
    return Mark(read[-1].sequence + 1, read[-1].sha256) if read else mark


def append(
    connection: sa.Connection, mark: Mark, account: str, kind: str, body: Json, **charge: Json
) -> Mark:
    """Write an entry at `mark`, which must be the end; the new end. `charge`: run, identity, round."""
    facts = {"run": None, "identity": None, "round": None, **charge}
    entry = Entry(mark.length, account, kind, body=body, previous=mark.head, **facts).hashed()
    connection.execute(sa.insert(LEDGER).values(**{**entry._asdict(), "body": canonical_json(body)}))
    return Mark(entry.sequence + 1, entry.sha256)


def lock(connection: sa.Connection) -> None:
    """One writer at a time until the transaction ends: two runs cannot read one balance and both spend it."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_WAIT_S}s'")
        connection.exec_driver_sql("LOCK TABLE ledger IN EXCLUSIVE MODE")
    else:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _read(row: sa.Row[Any]) -> Entry:
    facts = dict(row._mapping)
    try:
        facts["body"] = json.loads(facts["body"])
    except ValueError:
        facts["body"] = None  # no entry has such a body: its hash will not match
    return Entry(**facts)


def _verify(found: Iterable[Entry], mark: Mark) -> None:
    """Raise `CorruptState` unless the entries go on from `mark` without a gap or a change."""
    length, head = mark
    for entry in found:
        if (entry.sequence, entry.previous) != (length, head) or entry.hashed() != entry:
            raise _broken(length, f"found there: {entry.kind} of run {entry.run}, round {entry.round}")
        length, head = length + 1, entry.sha256


def _broken(sequence: int, what: str) -> CorruptState:
    return CorruptState(
        f"privacy ledger: the chain breaks at entry {sequence} ({what}); "
        "restore the ledger from a copy, nothing may be released until then"
    )
