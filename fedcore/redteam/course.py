"""A training with canaries among its clients, round after round, and what an auditor's scores come to.

The rounds are `fedcore.round` itself; where they are kept and paid is handed in: see `enrol.py`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np

from fedcore.errors import BadInput
from fedcore.privacy.events import Event
from fedcore.redteam.canary import Canaries, Sight
from fedcore.round import next_state, round_record, run_steps
from fedcore.state import Ledger, Plan, RoundJournal, State
from fedcore.types import Fleet, Floats, RoundRecord

_FEWEST = 10


@dataclass(frozen=True)
class Asked:
    """What is declared before anything is seen: how many canaries and guesses, what the auditor sees.

    `guesses` is for each side (None: a tenth of the canaries), `seed` repeats coins and directions (None: they
    come from the system's source), `confidence` is that of each lower bound by itself.
    """

    canaries: int = 200
    guesses: int | None = None
    seed: int | None = None
    confidence: float = 0.95
    sight: Sight = "rounds"

    @property
    def each(self) -> int:
        """Guesses a side. Raises `BadInput` for numbers that nothing can be told from."""
        each = self.canaries // 10 if self.guesses is None else self.guesses
        if self.canaries < _FEWEST:
            raise BadInput(
                f"canaries must be {_FEWEST} or more, got {self.canaries}; 200 show a missing noise, 1000 show more"
            )
        if not 1 <= each <= self.canaries // 2:
            raise BadInput(
                f"guesses must be between 1 and {self.canaries // 2} a side for {self.canaries} canaries, got {each}; "
                "change --guesses or --canaries"
            )
        if not 0.5 <= self.confidence < 1:
            raise BadInput(
                f"confidence must be at least 0.5 and below 1, got {self.confidence:g}; 0.95 is usual"
            )
        return each


class Account(Ledger, Protocol):
    """The population's account: a ledger that also says what it can still pay."""

    def affords(self, run: str, round_number: int, event: Event) -> bool:
        """Whether the round is charged already, or its charge stays within the limit."""
        ...


@dataclass(frozen=True)
class Audited:
    """A training with canaries, ready to run: its plan and fleet, and where its rounds are kept and paid."""

    plan: Plan
    start: State
    fleet: Fleet
    canaries: Canaries
    scale: float  # from a move of the model to clips in the sum of updates
    journal: Callable[[int], RoundJournal]
    committed_at: Callable[[int], float]  # round -> Unix seconds
    account: Account | None


class Course(NamedTuple):
    """How far it is: each canary's score (m,), and the record of every round."""

    scores: Floats
    records: tuple[RoundRecord, ...]


def train(audited: Audited) -> Iterator[Course]:
    """The course after each round, until the last one or the last that the account affords."""
    state, course = audited.start, Course(np.zeros(audited.canaries.count), ())
    for number in range(audited.plan.rounds):
        journal = audited.journal(number)
        if number and not _affords(audited, number, journal):
            return
        known = run_steps(state, audited.plan, audited.fleet, journal, audited.account)
        released = known.arrays("release")["model"]
        seen = audited.scale * audited.canaries.seen(number, state.model, released)
        record = replace(round_record(known), committed_at=audited.committed_at(number))
        course = Course(course.scores + seen, (*course.records, record))
        state = next_state(known)
        yield course


def _affords(audited: Audited, number: int, journal: RoundJournal) -> bool:
    """Whether the round is paid already, or can be."""
    charge, account = audited.plan.charge, audited.account
    if charge is None or account is None or "select" in journal.seconds():
        return True
    return account.affords(audited.start.run, number, charge.event(number))
