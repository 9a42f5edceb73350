"""A round's journal that nothing survives: for simulations that train thousands of rounds and keep only numbers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fedcore.state import Outcome
from fedcore.types import Reply


@dataclass
class Memory:
    """One round's journal for as long as the round takes: see `fedcore.state.RoundJournal`."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    kept: dict[str, Reply] = field(default_factory=dict)

    def once(self, step: str, compute: Callable[[], Outcome]) -> Outcome:
        """The outcome of the step, computed the first time."""
        if step not in self.outcomes:
            self.outcomes[step] = compute()
        return self.outcomes[step]

    def replies(self) -> Mapping[str, Reply]:
        """Replies so far."""
        return self.kept

    def keep(self, reply: Reply) -> None:
        """Keep a client's first reply."""
        self.kept.setdefault(reply.client, reply)

    def seconds(self) -> Mapping[str, float]:
        """Nothing: steps are not timed here."""
        return {}
