"""Raw rows from outside, as a device gets them in a request, checked and turned into columns.

The schema is closed: whatever `Features` does not know, or lacks, is refused by row and column.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedcore.data.statistics import Columns, no_token
from fedcore.errors import BadInput
from fedcore.types import Json

if TYPE_CHECKING:
    from fedcore.data.features import Features, Scale, Vocabulary


def columns_of(rows: Sequence[Mapping[str, Json]], features: "Features") -> Columns:
    """Columns of `rows` (from 0): see `Features.validate_rows`."""
    if not rows:
        raise BadInput("there are no rows; send at least one")
    for i, row in enumerate(rows):
        _refuse_columns(i, row, features.columns)
    if features.shape:
        x = np.stack([_array(i, row["x"], features.shape) for i, row in enumerate(rows)])
        wrong = features.tokens and no_token(x, features.tokens)
        if wrong:
            raise BadInput(f"column 'x' {wrong}; send token numbers")
        return {"x": x}
    numbers = {s.name: [_number(i, s, row[s.name]) for i, row in enumerate(rows)] for s in features.scales}
    words = {v.name: [_word(i, v, row[v.name]) for i, row in enumerate(rows)] for v in features.vocabularies}
    return {name: np.array(column, np.float64) for name, column in numbers.items()} | {
        name: np.array(column, np.str_) for name, column in words.items()
    }


def _refuse_columns(i: int, row: Mapping[str, Json], known: tuple[str, ...]) -> None:
    if not isinstance(row, Mapping):
        raise BadInput(
            f"row {i} is a {type(row).__name__}, not an object of columns; write {{column: value, …}}"
        )
    for name in row:
        if name not in known:
            raise BadInput(f"row {i}: unknown column {name!r}; known: {', '.join(known)}")
    for name in known:
        if name not in row:
            raise BadInput(f"row {i}: column {name!r} is missing; a row needs {', '.join(known)}")


def _number(i: int, scale: "Scale", value: Json) -> float:
    if value is None and scale.nullable:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadInput(f"row {i}, column {scale.name!r}: must be a number, got {value!r}; send a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise BadInput(f"row {i}, column {scale.name!r}: must be finite, got {number}; send a finite number")
    return number


def _word(i: int, vocabulary: "Vocabulary", value: Json) -> str:
    if value is None and vocabulary.nullable:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise BadInput(f"row {i}, column {vocabulary.name!r}: must be text, got {value!r}; send text")
    return str(value)


def _array(i: int, value: Json, shape: tuple[int, ...]) -> NDArray[np.float32]:
    try:
        array = np.asarray(value)
    except ValueError:
        raise BadInput(
            f"row {i}, column 'x': lists of different lengths; send an array of shape {shape}"
        ) from None
    if array.dtype.kind not in "iuf" or array.shape != shape:
        raise BadInput(
            f"row {i}, column 'x': must be numbers of shape {shape}, got {array.dtype} of {array.shape}"
        )
    with np.errstate(over="ignore"):
        row = array.astype(np.float32)
    if not np.isfinite(row).all():
        raise BadInput(
            f"row {i}, column 'x': must be finite, got {row[~np.isfinite(row)][0]}; send finite numbers"
        )
    return row
