"""Finished cells, each in a file of its own under its settings' digest, and where an unfinished one stands.

A cell whose settings change is another cell. Several processes may fill one folder, each its own part.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedcore.blobs import write_whole
from fedcore.config import config_tree
from fedcore.data.raw import writing
from fedcore.errors import BadInput, CorruptState
from fedcore.tables.halfway import Halfway
from fedcore.tables.table import Cell, Table, cell_config
from fedcore.tables.training import HERE, Trained, Where, train
from fedcore.types import canonical_json


@dataclass(frozen=True)
class Asked:
    """What is asked of a table: how many seeds, at most how many rounds a cell, only which rows and columns."""

    table: Table
    seeds: int
    rounds: int | None = None
    only: Sequence[str] = ()
    cells: tuple[Cell, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Raise `BadInput` or `UnknownName` for what cannot be asked."""
        if self.seeds < 1:
            raise BadInput(f"seeds must be 1 or more, got {self.seeds}; five show the spread")
        found = tuple(
            Cell(row, column, seed, self.rounds)
            for seed in range(1, self.seeds + 1)
            for row, column in self.table.chosen(self.only)
        )
        object.__setattr__(self, "cells", found)

    def rounds_of(self, cell: Cell) -> int:
        """How many rounds `cell` is trained."""
        return cell_config(self.table, cell).run.rounds


@dataclass(frozen=True)
class Done:
    """A finished cell; `key` is the digest of its settings, `at` (Unix seconds) when it was finished."""

    cell: Cell
    key: str
    trained: Trained
    at: float


def fill(
    asked: Asked,
    workdir: Path,
    where: Where = HERE,
    heard: Callable[[Done], None] = lambda done: None,
    progress: Callable[[Cell, int], None] = lambda cell, rounds: None,
) -> list[Done]:
    """All cells in their order, trained where ``workdir/cells`` does not hold them yet; each is told to `heard`.

    `progress` hears of a cell and how many of its rounds are done. Raises `CorruptState` for a file
    that is no cell, and what `train` raises.
    """
    found = []
    for cell in asked.cells:
        key = key_of(asked.table, cell)
        file = workdir / "cells" / f"{key}.json"
        done = _read(file, cell, key)
        if done is None:
            halfway = Halfway(workdir / "halfway" / key)
            trained = train(
                asked.table,
                cell,
                workdir,
                where,
                lambda rounds, cell=cell: progress(cell, rounds),  # type: ignore[misc]
                halfway,
            )
            done = Done(cell, key, trained, time.time())
            _write(file, done)
            halfway.over()
        found.append(done)
        heard(done)
    return found


def key_of(table: Table, cell: Cell) -> str:
    """The digest of everything that a cell's score follows from."""
    tree = config_tree(cell_config(table, cell))
    settings = {name: part for name, part in tree.items() if name not in ("tracking", "store", "promotion")}
    judged = (table.metric, table.over, table.when, cell.row.metric, cell.row.judged_on)
    return hashlib.sha256(canonical_json([settings, judged]).encode()).hexdigest()[:16]


def _write(file: Path, done: Done) -> None:
    trained = done.trained
    tree = {
        "row": done.cell.row.name,
        "column": done.cell.column.name,
        "seed": done.cell.seed,
        "rounds": trained.rounds,
        "score": trained.score,
        "scores": [[number, score] for number, score in sorted(trained.scores.items())],
        "parts": dict(trained.parts),
        "seconds": trained.seconds,
        "at": done.at,
    }
    with writing(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, (canonical_json(tree) + "\n").encode())


def _read(file: Path, cell: Cell, key: str) -> Done | None:
    if not file.is_file():
        return None
    try:
        tree: Mapping[str, object] = json.loads(file.read_text(encoding="utf-8"))
        scores = {int(number): float(score) for number, score in tree["scores"]}  # type: ignore[attr-defined]
        parts = {str(name): float(score) for name, score in tree["parts"].items()}  # type: ignore[attr-defined]
        numbers = [float(tree[name]) for name in ("score", "seconds", "at")]  # type: ignore[arg-type]
        trained = Trained(scores, numbers[0], parts, int(tree["rounds"]), numbers[1])  # type: ignore[call-overload]
        return Done(cell, key, trained, numbers[2])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise CorruptState(f"{file} is no finished cell; remove it to train the cell again") from None
