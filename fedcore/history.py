"""What the server remembers of the clients it asked, from round to round; kept only where something asks for it.

One row for each client asked so far, so that a population costs nothing. What a client reports is
taken for what it is, a claim: what is no number counts as not said.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fedcore.types import Arrays, Floats

# Rounds it was asked in, the last of them, the training loss it last told (NaN: none), the virtual
# seconds its last task took (NaN: no virtual clock), its battery's level and when that was so.
COLUMNS = ("asked", "last", "loss", "seconds", "level", "since")


@dataclass(frozen=True)
class History:
    """Rows of `table` (k, `COLUMNS`) by client: `clients` (k,) are places in the sorted population, ascending."""

    clients: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    table: Floats = field(default_factory=lambda: np.zeros((0, len(COLUMNS))))

    def column(self, name: str, population: int, default: float = np.nan) -> Floats:
        """One column for everyone, (population,): `default` where nothing is remembered."""
        everyone = np.full(population, default)
        everyone[self.clients] = self.table[:, COLUMNS.index(name)]
        return everyone

    def of(self, place: int) -> Mapping[str, float] | None:
        """What is remembered of one client; None: it was never asked."""
        row = int(np.searchsorted(self.clients, place))
        if row == len(self.clients) or self.clients[row] != place:
            return None
        return dict(zip(COLUMNS, self.table[row].tolist(), strict=True))

    def after(self, rows: Mapping[int, Mapping[str, float]]) -> Self:
        """The history once clients at these places have these values; columns not named stay, or are NaN."""
        places = np.union1d(self.clients, np.array(sorted(rows), np.int64))
        table = np.full((len(places), len(COLUMNS)), np.nan)
        table[np.searchsorted(places, self.clients)] = self.table
        for place, values in rows.items():
            row = np.searchsorted(places, place)
            for name, value in values.items():
                table[row, COLUMNS.index(name)] = value
        return type(self)(places, table)

    def arrays(self) -> dict[str, NDArray[np.float64] | NDArray[np.int64]]:
        """As it is journaled; nothing where nothing is remembered."""
        return {"clients": self.clients, "table": self.table} if len(self.clients) else {}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """The inverse of `arrays`."""
        return cls(arrays["clients"], arrays["table"]) if arrays else cls()
