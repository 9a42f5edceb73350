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
from fedcore.redteam.noised import sent_along
from fedcore.round import round_record, run_steps
from fedcore.state import Ledger, Plan, RoundJournal, State
from fedcore.transforms.matrix import Correlated
from fedcore.types import Fleet, Floats, RoundRecord

_FEWEST = 10
CONFIDENCE = 0.99  # of a gate: the 0.95 of the literature fails one correct training in twenty
UNWATCHED = 0.999  # of a gate in a pipeline, where nobody is there to repeat an audit that failed by little


@dataclass(frozen=True)
class Asked:
    """What is declared before anything is seen: how many canaries and guesses, what the auditor sees.

    `guesses` is for each side (None: a tenth of the canaries), `seed` repeats coins and directions (None: they
    come from the system's source), `confidence` is that of each lower bound by itself.
    """

    canaries: int = 200
    guesses: int | None = None
    seed: int | None = None
    confidence: float = CONFIDENCE
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
                f"confidence must be at least 0.5 and below 1, got {self.confidence:g}; 0.99 is usual"
            )
        return each


class Account(Ledger, Protocol):
    """The population's account: a ledger that also says what it can still pay."""

    def affords(self, run: str, round_number: int, event: Event) -> bool:
        """Whether the round is charged already, or its charge stays within the limit."""
        ...


@dataclass(frozen=True)
class Audited:
    """A training with canaries, ready to run: its plan and fleet, and where its rounds are kept and paid.

    `correlated` is the noise where it is correlated over the rounds that the auditor sees; `own_noise` the clip
    where each client adds noise itself and the auditor sees its updates.
    """

    plan: Plan
    start: State
    fleet: Fleet
    canaries: Canaries
    scale: float  # from a move of the model to clips in the sum of updates
    journal: Callable[[int], RoundJournal]
    committed_at: Callable[[int], float]  # round -> Unix seconds
    account: Account | None
    correlated: Correlated | None = None
    own_noise: float | None = None


class Course(NamedTuple):
    """How far it is: each canary's score (m,), and the record of every round."""

    scores: Floats
    records: tuple[RoundRecord, ...]


def train(audited: Audited) -> Iterator[Course]:
    """The course after each round, until the last one or the last that the account affords."""
    state, course = audited.start, Course(np.zeros(audited.canaries.count), ())
    moves: list[Floats] = []
    asked: list[Floats] = []
    for number in range(audited.plan.rounds):
        journal = audited.journal(number)
        if number and not _affords(audited, number, journal):
            return
        known = run_steps(state, audited.plan, audited.fleet, journal, audited.account)
        released = known.arrays("release")["model"]
        record = replace(round_record(known), committed_at=audited.committed_at(number))
        if audited.own_noise is None:
            seen = _clips(audited, record) * audited.canaries.seen(number, state.model, released)
        else:
            replies = journal.replies()
            seen = sent_along(audited.canaries, replies, released.size, audited.own_noise)
        scores = course.scores + seen
        if audited.correlated is not None:
            moves.append(seen)
            asked.append(np.isin(audited.canaries.names, known.facts("select")["cohort"]).astype(np.float64))
            scores = matched(audited.correlated, np.array(moves), np.array(asked))
        course = Course(scores, (*course.records, record))
        state = known.after
        yield course


def matched(noise: Correlated, moves: Floats, asked: Floats) -> Floats:
    """Each canary's score (m,), in clips, from its moves (rounds, m) under correlated noise.

    It counts one for each round in which the canary sent, plus noise. What is released is x + C⁻¹z for independent
    z, so C·moves is C·x plus noise of one deviation: of all linear scores the one along C·x has the least
    noise. `asked` (rounds, m) is 1 where a canary would have sent.
    """
    rounds = len(moves)
    undone = np.zeros((rounds, rounds))
    for number in range(rounds):
        undone[number, : number + 1] = noise.row(number)
    expected = np.linalg.solve(undone, asked)
    strength = (expected**2).sum(axis=0)
    score: Floats = (np.linalg.solve(undone, moves) * expected).sum(axis=0)
    counted: Floats = score * asked.sum(axis=0) / np.where(strength > 0, strength, 1.0)
    return counted


def _clips(audited: Audited, record: RoundRecord) -> float:
    """From a move of the model to clips of this round: a clip that follows the updates is another one each round."""
    adaptive = audited.plan.adaptive
    return audited.scale * (adaptive.start / record.clip if adaptive and record.clip else 1.0)


def _affords(audited: Audited, number: int, journal: RoundJournal) -> bool:
    """Whether the round is paid already, or can be."""
    charge, account = audited.plan.charge, audited.account
    if charge is None or account is None or "select" in journal.seconds():
        return True
    return account.affords(audited.start.run, number, charge.event(number))
