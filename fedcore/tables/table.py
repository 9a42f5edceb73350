"""What a table is: rows (algorithms) by columns (settings), the published numbers, and how a cell is trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from fedcore.config import Config, config_from
from fedcore.errors import BadInput, UnknownName
from fedcore.types import Json

Tree = Mapping[str, Json]  # a configuration, or part of one, as nested mappings


class Published(NamedTuple):
    """A published number and its deviation over seeds (None: not given), in the table's unit."""

    mean: float
    deviation: float | None


@dataclass(frozen=True)
class Part:
    """A row or a column: its name and what it sets over the rest of the table.

    `judged_on` names the data whose sites judge the model where those are not the ones it was
    trained on; `metric` what is scored, where that is not the table's.
    """

    name: str
    tree: Tree
    judged_on: Tree | None = None
    metric: str | None = None


@dataclass(frozen=True)
class Table:
    """A published table.

    `over` says how clients are put together: all test ``rows`` count alike, or the mean of the
    ``clients``' own scores. `when` is the ``best`` judged round or the ``last``. Numbers are shown
    times `scale`; `short` is how many rounds are run unless all are asked for (None: all).
    """

    name: str
    title: str
    source: str
    metric: str
    over: Literal["rows", "clients"]
    when: Literal["best", "last"]
    base: Tree
    rows: Sequence[Part]
    columns: Sequence[Part]
    published: Mapping[tuple[str, str], Published]
    seeds: int
    short: int | None = None
    short_seeds: int | None = None
    scale: float = 1.0
    lower_is_better: bool = False
    notes: Sequence[str] = ()

    def chosen(self, only: Sequence[str]) -> list[tuple[Part, Part]]:
        """Rows and columns of which each is named in `only`, or all where none is. Raises `UnknownName`."""
        known = [part.name for part in (*self.rows, *self.columns)]
        for name in only:
            if name not in known:
                raise UnknownName(f"row or column of table {self.name}", name, known)
        rows = [row for row in self.rows if row.name in only] or self.rows
        columns = [column for column in self.columns if column.name in only] or self.columns
        return [(row, column) for column in columns for row in rows]


@dataclass(frozen=True)
class Cell:
    """One training: a row, a column, a seed, and at most so many rounds (None: as published)."""

    row: Part
    column: Part
    seed: int
    rounds: int | None = None

    @property
    def label(self) -> str:
        """The cell in words."""
        return f"{self.column.name}, {self.row.name}, seed {self.seed}"


def cell_config(table: Table, cell: Cell) -> Config:
    """The whole configuration of a cell. Raises `BadInput` for fewer rounds than one."""
    if cell.rounds is not None and cell.rounds < 1:
        raise BadInput(
            f"rounds must be 1 or more, got {cell.rounds}; leave the option out for the table's own"
        )
    tree = overlaid(overlaid(table.base, cell.column.tree), cell.row.tree)
    asked = int(tree["run"]["rounds"])
    rounds = min(asked, cell.rounds or asked)
    every = rounds if table.when == "last" else 1
    # Nobody's published run was rolled back, however its loss jumped.
    fixed = {"run": {"rounds": rounds}, "evaluate": {"every": every, "rollback_factor": 1e12}}
    lenient = {"checks": {"min_rows": 1, "max_duplicates": 1.0, "docs": False}}
    return config_from({**overlaid(overlaid(tree, fixed), lenient), "seed": cell.seed})


def full_rounds(table: Table, row: Part, column: Part) -> int:
    """How many rounds the published cell was trained."""
    return int(overlaid(overlaid(table.base, column.tree), row.tree)["run"]["rounds"])


def overlaid(below: Tree, above: Tree) -> dict[str, Json]:
    """`above` laid over `below`, key by key."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            value = overlaid(old, value)  # noqa: PLW2901
        merged[key] = value
    return merged
