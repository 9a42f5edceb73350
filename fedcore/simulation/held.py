"""A round's journal for simulations: what can be computed again is not made durable piece by piece.

Replies stay in memory, and steps are committed together at the steps named by `lasting`, in one transaction.
A process that is killed in between asks its clients again, and they give the same bytes.
"""

import json
import time
from collections.abc import Callable, Mapping

from fedcore.config import PrivacyConfig
from fedcore.state import Outcome, Plan
from fedcore.store import Journal, Store
from fedcore.types import Reply, canonical_json

LEFT = ("release", "record")  # the steps whose arrays later rounds start from


def lasting(plan: Plan, privacy: PrivacyConfig) -> frozenset[str] | None:
    """The steps of a round at which all before them is committed; None: every step and reply on its own.

    Without privacy a round is a function of the state before it. A private one commits whom it asks, what it sums
    and what it releases before anything follows from them: no noise is drawn twice for one release. Where clients
    draw noise from the system's source, each reply is a release and cannot be had again; where nobody waits, or a
    client's history is needed after a release, replies are read by what comes later.
    """
    if plan.asynchrony is not None:
        return None
    if privacy.mode == "none":
        return frozenset({"record"})
    recomputable = privacy.mode == "central" or privacy.noise == "seeded"
    return (
        frozenset({"select", "combine", "release", "record"}) if recomputable and not plan.remembers else None
    )


class HeldJournal:
    """One round's part of the store, written at the steps of `at`: see `fedcore.state.RoundJournal`."""

    def __init__(self, store: Store, run: str, round_number: int, at: frozenset[str]) -> None:
        self._store, self._run, self._round, self._at = store, run, round_number, at
        self._journal: Journal = store.journal(run, round_number)
        self._held: dict[str, tuple[Outcome, float]] = {}
        self._committed = set(
            store.steps(run, round_number)
        )  # nobody else writes while this process holds the run
        self._replies: dict[str, Reply] = dict(self._journal.replies()) if self._committed else {}

    def once(self, step: str, compute: Callable[[], Outcome]) -> Outcome:
        """The committed outcome, the one left by a killed execution, or a new one, held or committed."""
        if step not in self._committed and self._store.adopt(self._run, self._round, step):
            self._committed.add(step)
        if (kept := self.kept(step)) is not None:
            return kept
        start = time.monotonic()
        computed = compute()
        outcome = Outcome(json.loads(canonical_json(computed.facts)), computed.arrays)  # as it would be read
        self._held[step] = (outcome, time.monotonic() - start)
        if step in self._at:
            self._commit(step)
        return outcome

    def _commit(self, last: str) -> None:
        """Commit what is held; arrays that only steps before `last` needed are let go."""
        needed = {last, *LEFT}
        steps = {
            step: (outcome if step in needed else Outcome(outcome.facts), seconds)
            for step, (outcome, seconds) in self._held.items()
        }
        self._store.write_all(self._run, self._round, steps)
        self._committed |= set(steps)
        self._held.clear()

    def replies(self) -> Mapping[str, Reply]:
        """Replies so far, by client."""
        return self._replies

    def reply(self, client: str) -> Reply | None:
        """The reply of one client, if there is one."""
        return self._replies.get(client)

    def kept(self, step: str) -> Outcome | None:
        """The outcome of a step, if it is held or committed."""
        if step in self._held:
            return self._held[step][0]
        return self._journal.kept(step) if step in self._committed else None

    def at(self, round_number: int) -> Journal:
        """The journal of another round of the same run."""
        return self._journal.at(round_number)

    def keep(self, reply: Reply) -> None:
        """Hold a reply; the first one of a client counts."""
        self._replies.setdefault(reply.client, reply)

    def seconds(self) -> Mapping[str, float]:
        """Wall time of each step so far."""
        held = {step: seconds for step, (_, seconds) in self._held.items() if "/" not in step}
        return {**self._journal.seconds(), **held}
