"""The privacy budget of a population: append-only, hash-chained, shared by all its runs.

An account is a population and a data version. A round reserves its event before anyone is
asked and settles it when something was released; a reservation counts as spent, so a crash can
only overcount. Each entry is charged once under any number of retries.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from fedcore.errors import BudgetSpent, CorruptState
from fedcore.privacy.accountant import epsilon
from fedcore.privacy.events import Event, event_from_json, event_tree
from fedcore.store import METADATA, Store
from fedcore.types import Json, canonical_json

LEDGER = sa.Table(
    "ledger",
    METADATA,
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("account", sa.String(200), nullable=False),
    sa.Column("run", sa.String(100), nullable=False),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("kind", sa.String(10), nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("previous", sa.String(64), nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.UniqueConstraint("account", "run", "round", "kind"),
)
GENESIS = "0" * 64


class PrivacyLedger:
    """One account of the ledger in a store: see `fedcore.round.Ledger`."""

    def __init__(self, store: Store, account: str, *, limit: float, delta: float) -> None:
        self.account, self._limit, self._delta = account, limit, delta
        self._engine = store.engine

    def reserve(self, run: str, round_number: int, event: Event) -> float:
        """Charge the round, once; ε of the account with it. Raises `BudgetSpent` and charges nothing."""
        with self._engine.begin() as connection:
            _lock(connection)
            entries = _chain(connection)
            mine = [e for e in entries if e["account"] == self.account and e["kind"] == "reserve"]
            for at, entry in enumerate(mine):
                if (entry["run"], entry["round"]) == (run, round_number):
                    return self._spent(mine[: at + 1])
            spent = epsilon([*_events(mine), event], self._delta)
            if spent > self._limit:
                raise BudgetSpent(spent, self._limit, round_number)
            self._append(connection, entries, run, round_number, "reserve", event_tree(event))
            return spent

    def settle(self, run: str, round_number: int, event: Event) -> None:
        """Note that the charge's event was released, once."""
        with self._engine.begin() as connection:
            _lock(connection)
            entries = _chain(connection)
            keys = {(e["account"], e["run"], e["round"], e["kind"]) for e in entries}
            if (self.account, run, round_number, "settle") not in keys:
                self._append(connection, entries, run, round_number, "settle", event_tree(event))

    def affords(self, event: Event) -> bool:
        """Whether one more such release would stay within the limit."""
        with self._engine.connect() as connection:
            entries = _chain(connection)
        mine = [e for e in entries if e["account"] == self.account and e["kind"] == "reserve"]
        return epsilon([*_events(mine), event], self._delta) <= self._limit

    def spent(self) -> float:
        """ε of all charges of the account so far."""
        with self._engine.connect() as connection:
            entries = _chain(connection)
        return self._spent([e for e in entries if e["account"] == self.account and e["kind"] == "reserve"])

    def _spent(self, reservations: list[dict[str, Json]]) -> float:
        return epsilon(_events(reservations), self._delta)

    def _append(
        self,
        connection: sa.Connection,
        entries: list[dict[str, Json]],
        run: str,
        round_number: int,
        kind: str,
        body: Json,
    ) -> None:
        entry = {
            "sequence": len(entries),
            "account": self.account,
            "run": run,
            "round": round_number,
            "kind": kind,
            "body": body,
            "previous": entries[-1]["sha256"] if entries else GENESIS,
        }
        row = {**entry, "body": canonical_json(body), "sha256": _digest(entry)}
        connection.execute(sa.insert(LEDGER).values(**row))


def entries(store: Store) -> list[dict[str, Any]]:
    """All entries of all accounts in order, the chain verified. Raises `CorruptState`."""
    with store.engine.connect() as connection:
        return _chain(connection)


def _chain(connection: sa.Connection) -> list[dict[str, Json]]:
    """Read the ledger and refuse one whose chain is broken."""
    found: list[dict[str, Json]] = []
    previous = GENESIS
    for row in connection.execute(sa.select(LEDGER).order_by(LEDGER.c.sequence)).mappings():
        try:
            entry = {**row, "body": json.loads(row["body"])}
        except ValueError:
            entry = {**row, "body": None}
        sha256 = entry.pop("sha256")
        if entry["sequence"] != len(found) or entry["previous"] != previous or _digest(entry) != sha256:
            raise CorruptState(
                f"privacy ledger: the chain breaks at entry {len(found)} (run {entry['run']}, round {entry['round']}); "
                "restore the ledger from a copy, nothing may be released until then"
            )
        previous = sha256
        found.append({**entry, "sha256": sha256})
    return found


def _events(reservations: list[dict[str, Json]]) -> list[Event]:
    return [event_from_json(entry["body"]) for entry in reservations]


def _digest(entry: Mapping[str, Json]) -> str:
    return hashlib.sha256(canonical_json(dict(entry)).encode()).hexdigest()


def _lock(connection: sa.Connection) -> None:
    """One writer at a time: two runs cannot read the same balance and both spend it."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("LOCK TABLE ledger IN EXCLUSIVE MODE")
    else:
        connection.exec_driver_sql("UPDATE meta SET value = value WHERE key = 'version'")
