"""A round's journal that nothing survives: for simulations that train thousands of rounds and keep only numbers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fedcore.state import Outcome
from fedcore.types import Reply


@dataclass
class Memory:
    """One round's journal for as long as the round takes: see `fedcore.state.RoundJournal`."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    answered: dict[str, Reply] = field(default_factory=dict)
    rounds: dict[int, "Memory"] = field(default_factory=dict)  # of the same run, where one needs the others

    def once(self, step: str, compute: Callable[[], Outcome]) -> Outcome:
        """The outcome of the step, computed the first time."""
        if step not in self.outcomes:
            self.outcomes[step] = compute()
        return self.outcomes[step]

    def replies(self) -> Mapping[str, Reply]:
        """Replies so far."""
        return self.answered

    def reply(self, client: str) -> Reply | None:
        """The reply of one client, if it came."""
        return self.answered.get(client)

    def kept(self, step: str) -> Outcome | None:
        """The outcome of a step that was taken."""
        return self.outcomes.get(step)

    def at(self, round_number: int) -> "Memory":
        """The journal of another round; a new one where there is none yet."""
        return self.rounds.setdefault(round_number, Memory(rounds=self.rounds))

    def keep(self, reply: Reply) -> None:
        """Keep a client's first reply."""
        self.answered.setdefault(reply.client, reply)

    def seconds(self) -> Mapping[str, float]:
        """Nothing: steps are not timed here."""
        return {}
