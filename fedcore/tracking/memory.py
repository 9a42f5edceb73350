"""A sink that remembers: for notebooks, tests and anything that wants the records at the end."""

from dataclasses import dataclass, field

from fedcore.types import RoundRecord


@dataclass
class Memory:
    """A sink; `records` holds each round once, in order of rounds, however often it was told."""

    _rounds: dict[int, RoundRecord] = field(default_factory=dict)

    def __call__(self, record: RoundRecord) -> None:
        """Keep `record`; a round told again replaces itself."""
        self._rounds[record.round] = record

    @property
    def records(self) -> tuple[RoundRecord, ...]:
        """All records so far, by round."""
        return tuple(self._rounds[number] for number in sorted(self._rounds))
