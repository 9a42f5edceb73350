"""What the entries of one account add up to: its terms, its limit, its charges. Nothing here reads or writes."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import NamedTuple

from fedcore.errors import CorruptState, PlanRefused
from fedcore.ledger.chain import Entry
from fedcore.privacy.accountant import Account as Events
from fedcore.privacy.events import Covered, Event, MatrixSums, event_from_json, for_training
from fedcore.types import Json

Key = tuple[str, int]  # identity of the run, round


@dataclass(frozen=True)
class Terms:
    """What an account is: fixed by its first entry, but for the limit, which only `raise_limit` moves.

    ε composes only what is meant for the same δ, unit and relation, so those are the account's.
    """

    limit: float
    delta: float
    unit: str
    relation: str
    population: str
    data_version: str

    def tree(self) -> dict[str, Json]:
        """As it stands in the account's first entry."""
        return asdict(self)


class Charge(NamedTuple):
    """One reserved round: what it may release, and ε of the account with it."""

    run: str
    event: Event
    epsilon: float


class Account:
    """The entries of one account, added up as they come; one a process, so that none is read twice."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.terms: Terms | None = None
        self.limit = float("inf")
        self.charges: dict[Key, Charge] = {}
        self.settled: set[Key] = set()
        self._counts: Counter[Event] = Counter()

    def add(self, entry: Entry) -> None:
        """Take the next entry, if it is of this account. Raises `CorruptState` for one that no fedcore writes."""
        if entry.account != self.name:
            return
        body = entry.body
        if entry.kind == "open":
            self.terms, self.limit = Terms(**body), body["limit"]
        elif entry.kind == "raise":
            self.limit = body["limit"]
        elif entry.kind == "reserve":
            event = event_from_json(body["event"])
            self.charges[self._key(entry)] = Charge(str(entry.run), event, body["epsilon"])
            self._counts[event] += 1
        elif entry.kind == "settle":
            self.settled.add(self._key(entry))
        else:
            raise CorruptState(
                f"privacy ledger: entry {entry.sequence} is of unknown kind {entry.kind!r}; "
                "use the fedcore that wrote it"
            )

    def epsilon(self, delta: float, more: Event | None = None) -> float:
        """ε at `delta` of all charges, and of one more."""
        return Events(self._counts + Counter([more] if more else [])).epsilon(delta)

    def epsilon_of(self, identity: str, delta: float) -> float:
        """ε at `delta` of the charges of one run, as if it were alone."""
        mine = Counter(charge.event for (of, _), charge in self.charges.items() if of == identity)
        return Events(mine).epsilon(delta)

    def refuse_uncovered(self, key: Key, event: Event) -> None:
        """Raise `PlanRefused` for a release that the charge it counts on does not pay for."""
        counted = for_training(event)
        if not isinstance(counted, Covered):
            return
        (identity, number), first = key, counted.first_round
        paid = self.charges.get((identity, first))
        whole = for_training(paid.event) if paid else None
        covers = whole.rounds if isinstance(whole, MatrixSums) else 0
        if not first < number < first + covers:
            raise PlanRefused(
                f"round {number} counts on the charge of the run's round {first}, which pays for {covers} rounds; "
                "start a new run with run.rounds as many as are wanted"
            )

    def _key(self, entry: Entry) -> Key:
        assert entry.identity is not None, "a charge has a run"
        assert entry.round is not None, "a charge has a round"
        return entry.identity, entry.round
