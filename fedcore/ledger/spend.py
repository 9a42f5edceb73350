"""How a run spends: reserve before anyone is asked, settle with what was released; one writer at a time.

A charge belongs to (account, identity of the run, round). The identity is made at random when the
run is entered, so a name used again elsewhere is another run. What a process has verified once it
does not read again; `verified` reads everything.
"""

from collections.abc import Mapping
from dataclasses import replace

import sqlalchemy as sa

from fedcore.errors import BadInput, BudgetSpent, CorruptState, PlanRefused, UnknownName
from fedcore.ledger.account import Account, Key, Terms
from fedcore.ledger.chain import Mark, after, append, lock, moved
from fedcore.privacy.events import Event, event_tree
from fedcore.store import Store
from fedcore.types import Json


class PrivacyLedger:
    """One account of the ledger in a store, for one run: see `fedcore.state.Ledger`.

    `limit` is the run's own: the account's ε may not exceed it, nor the account's limit. `account`
    is ``POPULATION@DATA_VERSION``. `identity` names the run for ever (None: its name does), `settings`
    are what each settled entry says of how it was released.
    """

    def __init__(
        self,
        store: Store,
        account: str,
        *,
        limit: float,
        delta: float,
        identity: str | None = None,
        settings: Mapping[str, Json] | None = None,
    ) -> None:
        self.account = account
        self._store, self._own_limit, self._delta = store, limit, delta
        self._identity, self._settings = identity, dict(settings or {})
        self._mark, self._sum = Mark(), Account(account)

    @property
    def limit(self) -> float:
        """The lower one of the run's limit and the account's, as last read."""
        return min(self._own_limit, self._sum.limit)

    def reserve(self, run: str, round_number: int, event: Event) -> float:
        """Charge the round, once; ε of the account with it.

        A retry is told what the first try was told. Raises `BudgetSpent` and charges nothing,
        `PlanRefused` where the account was opened for something else, `CorruptState` for a round
        that was charged for another event, or was released already.
        """
        with self._store.writing() as connection:
            lock(connection)
            self._catch_up(connection)
            key = self._key(run, round_number)
            charged = self._sum.charges.get(key)
            if charged:
                self._refuse_another(key, run, event)
                if key in self._sum.settled:
                    raise CorruptState(
                        f"round {round_number} of run {run} was released already and asks to be charged again: "
                        "its journal is older than the ledger; restore the journal from a newer copy"
                    )
                return charged.epsilon
            spent = self._spent_with(key, event)
            if spent > self.limit:
                raise self._refusal(spent, round_number)
            mark = self._mark
            if self._sum.terms is None:
                mark = append(connection, mark, self.account, "open", self._terms(event).tree())
            body = {"event": event_tree(event), "epsilon": spent}
            append(connection, mark, self.account, "reserve", body, **_charge(run, key))
            return spent

    def settle(
        self, run: str, round_number: int, event: Event, released: Mapping[str, Json] | None = None
    ) -> None:
        """Note, once, that the charge's event was released; `released` adds to the run's settings.

        Who took part is not noted: under secret sampling that is private. Raises `CorruptState`
        without a charge for this event.
        """
        with self._store.writing() as connection:
            lock(connection)
            self._catch_up(connection)
            key = self._key(run, round_number)
            self._refuse_another(key, run, event)
            if key not in self._sum.settled:
                body = {"event": event_tree(event), "released": {**self._settings, **(released or {})}}
                append(connection, self._mark, self.account, "settle", body, **_charge(run, key))

    def affords(self, run: str, round_number: int, event: Event) -> bool:
        """Whether the round may be released: it is charged already, or its charge stays within the limit."""
        with self._store.reading() as connection:
            self._catch_up(connection)
        key = self._key(run, round_number)
        return key in self._sum.charges or self._spent_with(key, event) <= self.limit

    def require(self, run: str, round_number: int, event: Event) -> None:
        """Raise what `reserve` would raise now for a round that was not charged; charge nothing."""
        if not self.affords(run, round_number, event):
            raise self._refusal(self._spent_with(self._key(run, round_number), event), round_number)

    def spent(self) -> float:
        """ε of all charges of the account so far."""
        with self._store.reading() as connection:
            self._catch_up(connection)
        return self._sum.epsilon(self._delta)

    def _catch_up(self, connection: sa.Connection) -> None:
        """Add up what was written since the last time; only committed entries are ever seen here."""
        found = after(connection, self._mark)
        for entry in found:
            self._sum.add(entry)
        self._mark = moved(self._mark, found)

    def _spent_with(self, key: Key, event: Event) -> float:
        if self._sum.terms:
            _refuse_other_terms(
                self.account, replace(self._sum.terms, limit=self._sum.limit), self._terms(event)
            )
        self._sum.refuse_uncovered(key, event)
        return self._sum.epsilon(self._delta, event)

    def _refuse_another(self, key: Key, run: str, event: Event) -> None:
        """Raise `CorruptState` unless the round was charged for this very event."""
        charged = self._sum.charges.get(key)
        if charged is None or charged.event != event:
            was = "not charged" if charged is None else f"charged for {event_tree(charged.event)}"
            raise CorruptState(
                f"round {key[1]} of run {run} was {was}, and now releases {event_tree(event)}; "
                "take the settings and the fedcore that the round was begun with"
            )

    def _terms(self, event: Event) -> Terms:
        population, _, version = self.account.rpartition("@")
        return Terms(self._own_limit, self._delta, event.unit, event.relation, population, version)

    def _refusal(self, spent: float, round_number: int) -> BudgetSpent:
        if self._own_limit < self._sum.limit:
            return BudgetSpent(spent, self.limit, round_number)
        step = f"raise the account's limit (fedcore privacy ledger --account {self.account} --raise EPSILON)"
        return BudgetSpent(spent, self.limit, round_number, step)

    def _key(self, run: str, round_number: int) -> Key:
        return self._identity or run, round_number


def raise_limit(store: Store, account: str, limit: float, reason: str) -> None:
    """Raise an account's limit to `limit`, for ever on record with its reason.

    Raises `UnknownName` for an account that is not there, `BadInput` for a limit that is no higher.
    """
    with store.writing() as connection:
        lock(connection)
        found = after(connection, Mark())
        known = Account(account)
        for entry in found:
            known.add(entry)
        if known.terms is None:
            raise UnknownName("account", account, {entry.account for entry in found})
        if not limit > known.limit:
            raise BadInput(
                f"account {account} has the limit ε = {known.limit:g}, got {limit:g}; it can only be raised"
            )
        append(connection, moved(Mark(), found), account, "raise", {"limit": limit, "reason": reason})


def _charge(run: str, key: Key) -> dict[str, Json]:
    return {"run": run, "identity": key[0], "round": key[1]}


def _refuse_other_terms(account: str, kept: Terms, asked: Terms) -> None:
    """Raise `PlanRefused` naming the first thing in which a run does not agree with the account."""
    for name in ("delta", "unit", "relation"):
        was, now = getattr(kept, name), getattr(asked, name)
        if was != now:
            raise PlanRefused(
                f"account {account} counts ε for {name} {was}, and this run releases for {name} {now}, which no single ε "
                f"covers; {_remedy(name, was)}"
            )
    if asked.limit > kept.limit:
        raise PlanRefused(
            f"account {account} has the limit ε = {kept.limit:g} and privacy.epsilon is {asked.limit:g}; lower it, or raise "
            f"the account's (fedcore privacy ledger --account {account} --raise {asked.limit:g})"
        )


def _remedy(name: str, was: object) -> str:
    if name == "delta":
        return f"set privacy.delta: {was:g}"
    return f"choose a privacy.mode and mechanism for {name} {was}"
