"""What a site's data look like: columns, label, task. Numpy only, so that a device can read it.

A set is a table (named columns, `numeric` and `categorical`) or an array (`x` of a fixed
`shape` per row, both tuples empty). Clients never see each other's rows; they share this file.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from fedcore.errors import CorruptState


@dataclass(frozen=True)
class Numeric:
    """A column of numbers; `low` and `high` are the range allowed, None for no limit."""

    name: str
    low: float | None = None
    high: float | None = None
    nullable: bool = False


@dataclass(frozen=True)
class Categorical:
    """A column of words; `values` lists the words allowed, empty when they are learned from the sites."""

    name: str
    values: tuple[str, ...] = ()
    nullable: bool = False


@dataclass(frozen=True)
class Schema:
    """Columns, label and task of a federated data set.

    For classification the label column holds one of `classes` (as text or integer, compared as
    text); for regression `classes` is empty, and so it is for survival, whose label is the time of an event, or
    minus the time up to which there was none. `shape` is the shape of one row of an array set.
    `unique` names the columns that together may not repeat (no duplicates); empty: all columns.
    `split` names the column that holds ``train`` or ``test`` where the set brings its division; empty: it is drawn.
    `tokens` is the size of the alphabet where ``x`` holds token numbers from 0, else 0.
    """

    dataset: str
    task: Literal["classification", "regression", "survival"]
    label: str
    classes: tuple[str, ...] = ()
    numeric: tuple[Numeric, ...] = ()
    categorical: tuple[Categorical, ...] = ()
    shape: tuple[int, ...] = ()
    unique: tuple[str, ...] = ()
    split: str = ""
    tokens: int = 0

    @property
    def is_table(self) -> bool:
        """Whether rows are named columns rather than arrays."""
        return not self.shape

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the raw columns a model is given: numbers, then words; ``x`` for an array set."""
        if not self.is_table:
            return ("x",)
        return (*(number.name for number in self.numeric), *(word.name for word in self.categorical))

    def to_json(self) -> str:
        """JSON text, the same for equal schemas."""
        kept = {
            name: value for name, value in asdict(self).items() if value or name not in ("split", "tokens")
        }
        # a schema without them keeps the bytes, and so the digest, that it always had
        return json.dumps(kept, indent=2, sort_keys=True, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Schema":
        """The schema that `to_json` wrote; raises `CorruptState` if it is not one."""
        try:
            tree = json.loads(text)
            return cls(
                dataset=tree["dataset"],
                task=tree["task"],
                label=tree["label"],
                classes=tuple(tree["classes"]),
                numeric=tuple(Numeric(**column) for column in tree["numeric"]),
                categorical=tuple(
                    Categorical(column["name"], tuple(column["values"]), column["nullable"])
                    for column in tree["categorical"]
                ),
                shape=tuple(tree["shape"]),
                unique=tuple(tree["unique"]),
                split=str(tree.get("split", "")),
                tokens=tree.get("tokens", 0),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptState(f"schema.json is not a schema ({error}); run the ingest stage again") from None

    def save(self, folder: Path) -> None:
        """Write ``schema.json`` into `folder`."""
        (folder / "schema.json").write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Schema":
        """Read ``schema.json`` of `folder`."""
        try:
            return cls.from_json((folder / "schema.json").read_text(encoding="utf-8"))
        except OSError as error:
            raise CorruptState(
                f"cannot read {folder / 'schema.json'}: {error.strerror}; run the ingest stage"
            ) from None
