"""Your own data: one table with a client column, or a folder with one file a client.

The schema is read off the data by a vote of the clients, so that one client's broken column
does not decide for all; whoever differs is found by the checks. To say it yourself (ranges,
classes, words), put ``schema.json`` into the folder, or ``NAME.schema.json`` beside the table.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedcore.config import DataConfig
from fedcore.data.raw import CLIENT, Raw
from fedcore.data.schema import Categorical, Numeric, Schema
from fedcore.data.shards import NULLS, SUFFIXES, as_array, parsed, read_raw
from fedcore.data.statistics import as_words
from fedcore.errors import BadConfig, BadData

Voter: TypeAlias = Mapping[str, NDArray[Any]]  # one client's columns

MOST_WORDS = 1000  # different words a column, or classes a label, may have


def load(config: DataConfig) -> Raw:
    """The table, the arrays or the files at ``data.path``. Raises `BadConfig` and `BadData`."""
    if config.path is None:
        raise BadConfig("data.path", None, "data.name 'own' needs the path of a table or folder")
    path = Path(config.path)
    if path.is_dir():
        return _folder(path, config)
    if not path.is_file():
        raise BadConfig("data.path", config.path, "there is no such file or folder")
    if path.suffix not in SUFFIXES:
        raise BadConfig("data.path", config.path, f"must end in {', '.join(SUFFIXES)} or be a folder")
    return _arrays(path, config) if path.suffix == ".npz" else _table(path, config)


def _folder(folder: Path, config: DataConfig) -> Raw:
    """One file a client, kept as they are: a file that cannot be read has no vote."""
    files = {file.stem: file for file in sorted(folder.iterdir()) if file.suffix in SUFFIXES}
    if not files:
        raise BadConfig("data.path", config.path, f"the folder holds no {', '.join(SUFFIXES)} file")
    given = folder / "schema.json"
    if given.exists():
        return Raw(Schema.load(folder), files=files)
    voters = [voter for file in files.values() if (voter := _voter(file))]
    return Raw(infer(voters, config, _label(config, voters)), files=files)


def _table(path: Path, config: DataConfig) -> Raw:
    import pyarrow as pa

    columns = {name: as_array(column) for name, column in read_raw(path).items()}
    clients = _take_clients(columns, config)
    schema = _given(path) or infer(_by_client(columns, clients), config, _label(config, [columns]))
    numbers = {column.name for column in schema.numeric}
    columns = {n: parsed(c) if n in numbers or n == schema.label else c for n, c in columns.items()}
    if clients is not None:
        columns = {CLIENT: clients} | columns
    return Raw(schema, table=pa.table({name: pa.array(column) for name, column in columns.items()}))


def _arrays(path: Path, config: DataConfig) -> Raw:
    columns = dict(read_raw(path))
    clients = _take_clients(columns, config)
    schema = _given(path) or infer(_by_client(columns, clients), config, _label(config, [columns]))
    return Raw(schema, arrays=columns if clients is None else columns | {CLIENT: clients})


def _take_clients(columns: dict[str, NDArray[Any]], config: DataConfig) -> NDArray[np.str_] | None:
    """The client column, taken out of `columns`; None where a partitioner will make the clients."""
    name = config.client_column
    if name is None and config.partition.scheme == "natural":
        raise BadConfig(
            "data.client_column", None, f"name the column that says whose row it is ({', '.join(columns)})"
        )
    if name is not None and name not in columns:
        raise BadConfig(
            "data.client_column", name, f"the table has no such column, it has {', '.join(columns)}"
        )
    if CLIENT in columns and name != CLIENT:
        raise BadConfig(
            "data.client_column", name, f"the table has another column {CLIENT!r}; rename that one"
        )
    return None if name is None else as_words(columns.pop(name))


def _by_client(columns: dict[str, NDArray[Any]], clients: NDArray[np.str_] | None) -> list[Voter]:
    if clients is None:
        return [columns]
    order = np.argsort(clients, kind="stable")
    cuts = np.flatnonzero(np.diff(np.unique(clients, return_inverse=True)[1][order])) + 1
    return [{name: column[rows] for name, column in columns.items()} for rows in np.split(order, cuts)]


def _given(path: Path) -> Schema | None:
    file = path.with_name(f"{path.stem}.schema.json")
    return Schema.from_json(file.read_text(encoding="utf-8")) if file.exists() else None


def _voter(file: Path) -> Voter | None:
    try:
        columns = {name: as_array(column) for name, column in read_raw(file).items()}
    except BadData:
        return None
    return columns if all(len(np.atleast_1d(column)) for column in columns.values()) else None


def _label(config: DataConfig, voters: Sequence[Voter]) -> str:
    if config.label is not None:
        return config.label
    if any("x" in voter and "y" in voter for voter in voters):
        return "y"
    names = ", ".join(dict.fromkeys(name for voter in voters for name in voter))
    raise BadConfig("data.label", None, f"name the column to learn ({names})")


def infer(voters: Sequence[Voter], config: DataConfig, label: str) -> Schema:
    """The schema most `voters` (one client's columns each) agree on. Raises `BadData` where there is none."""
    present = Counter(name for voter in voters for name in voter)
    names = [name for name, votes in present.items() if 2 * votes > len(voters)]
    if label not in names:
        raise BadData(
            "own",
            f"label column {label!r} is missing, there are {', '.join(names) or 'none'}",
            "set data.label",
        )
    classes = _classes(voters, label) if config.task == "classification" else ()
    if config.task == "regression" and _kind(voters, label) != "number":
        raise BadData(
            "own", f"label {label!r} holds text, regression learns numbers", "set data.task or data.label"
        )
    if "x" in names and voters[0]["x"].ndim > 1:
        shape = Counter(voter["x"].shape[1:] for voter in voters if "x" in voter).most_common(1)[0][0]
        return Schema("own", config.task, label, classes, shape=shape)
    kinds = {name: _kind(voters, name) for name in names if name != label}
    return Schema(
        "own",
        config.task,
        label,
        classes,
        tuple(Numeric(n, nullable=_nullable(voters, n)) for n, kind in kinds.items() if kind == "number"),
        tuple(Categorical(n, nullable=_nullable(voters, n)) for n, kind in kinds.items() if kind == "word"),
    )


def _kind(voters: Sequence[Voter], name: str) -> Literal["number", "word"]:
    """What most clients hold in a column. Raises `BadData` for dates, arrays and a word for every row."""
    columns = [voter[name] for voter in voters if name in voter]
    for column in columns:
        if column.ndim != 1 or column.dtype.kind not in "iufbUSO":
            step = "turn it into numbers or words, or leave it out"
            raise BadData("own", f"column {name!r} holds {column.dtype} of shape {column.shape[1:]}", step)
    votes = [parsed(column).dtype.kind in "iufb" for column in columns if (as_words(column) != "").any()]
    if 2 * sum(votes) >= len(votes):
        return "number"
    words = len({word for column in columns for word in np.unique(as_words(column))})
    if words > MOST_WORDS:
        raise BadData(
            "own", f"column {name!r} holds {words} different words, at most {MOST_WORDS}", "leave it out"
        )
    return "word"


def _nullable(voters: Sequence[Voter], name: str) -> bool:
    return any(np.isin(as_words(voter[name]), NULLS).any() for voter in voters if name in voter)


def _classes(voters: Sequence[Voter], label: str) -> tuple[str, ...]:
    """All labels that occur, in the order of their numbers if they are whole numbers."""
    found = {str(w) for voter in voters if label in voter for w in np.unique(as_words(voter[label])) if w}
    if not 2 <= len(found) <= MOST_WORDS:
        step = "set data.label, or data.task: regression for a number"
        raise BadData(
            "own",
            f"label {label!r} has {len(found)} different values, 2 to {MOST_WORDS} can be told apart",
            step,
        )
    whole = all(word.lstrip("-").isdigit() for word in found)
    return tuple(sorted(found, key=int if whole else None))
