"""One file of a site -> columns of the schema, and the sentence that says why it cannot be.

Parquet and CSV through pyarrow, ``.npz`` through numpy without pickle. Text in a number, a
missing column, a missing value where none is allowed: `BadData` names site, file, column, value.
"""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from fedcore.data.schema import Schema
from fedcore.data.statistics import as_words, no_token
from fedcore.errors import BadData

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".parquet", ".csv", ".npz")
TRAIN, TEST = "train", "test"  # what a published division says of a row
NULLS = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?")


@dataclass(frozen=True)
class Shard:
    """One file: which, its columns as the schema names them, and its raw label column."""

    file: Path
    columns: Mapping[str, NDArray[Any]]
    label: NDArray[Any]

    def refuse(self, why: str) -> NoReturn:
        """Raise `BadData` naming the site (the folder) and the file."""
        raise BadData(f"{self.file.parent.name}/{self.file.name}", why)


def shard_files(folder: Path) -> list[Path]:
    """The data files of a site, sorted by name. Raises `BadData` when there is no folder or no file."""
    if not folder.is_dir():
        raise BadData(folder.name, f"there is no folder {folder}", "run the partition stage")
    files = sorted(
        file for file in folder.iterdir() if file.suffix in SUFFIXES and not file.name.startswith(".")
    )
    if not files:
        raise BadData(folder.name, f"{folder} holds no {', '.join(SUFFIXES)} file", "run the partition stage")
    return files


def read_shard(file: Path, schema: Schema) -> Shard:
    """The columns of `schema` in `file`. Raises `BadData`."""
    raw = read_raw(file)
    shard = Shard(file, {}, np.empty(0))
    sides = (schema.split,) if schema.split else ()
    for name in (*schema.columns, schema.label, *sides):
        if name not in raw:
            shard.refuse(f"column {name!r} is missing, the file has {', '.join(raw) or 'none'}")
    label = as_array(raw[schema.label])
    if label.size == 0:
        shard.refuse("the file has no rows")
    columns: dict[str, NDArray[Any]] = {name: _side(shard, name, as_array(raw[name])) for name in sides}
    if not schema.is_table:
        x = _array(shard, as_array(raw["x"]), schema.shape, len(label))
        wrong = no_token(x, schema.tokens) if schema.tokens else None
        if wrong:
            shard.refuse(f"x {wrong}")
        return Shard(file, {**columns, "x": x}, label)
    for number in schema.numeric:
        columns[number.name] = _numbers(shard, number.name, as_array(raw[number.name]), number.nullable)
    for word in schema.categorical:
        columns[word.name] = _words(shard, word.name, as_array(raw[word.name]), word.nullable)
    for name, column in columns.items():
        if column.shape != label.shape:
            shard.refuse(f"column {name!r} has shape {column.shape}, the label {label.shape}")
    return Shard(file, columns, label)


def labels_of(shard: Shard, schema: Schema) -> NDArray[Any]:
    """The shard's labels (n,): text of the class, or finite float64 for regression. Raises `BadData`."""
    if schema.task != "classification":
        return _numbers(shard, schema.label, shard.label, nullable=False)
    words = _words(shard, schema.label, shard.label, nullable=False)
    wrong = np.flatnonzero(~np.isin(words, np.array(schema.classes)))
    if len(wrong):
        allowed = ", ".join(schema.classes)
        shard.refuse(
            f"label {schema.label!r} holds {str(words[wrong[0]])!r} in row {wrong[0]}, allowed: {allowed}"
        )
    return words


def read_raw(file: Path) -> Mapping[str, Any]:
    """Every column of `file` by name: pyarrow columns of a table, arrays of an ``.npz``. Raises `BadData`."""
    try:
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as arrays:
                return dict(arrays)
        table = read_table(file)
        return dict(zip(table.column_names, table.columns, strict=True))
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise BadData(f"{file.parent.name}/{file.name}", f"the file cannot be read: {why}") from None


def read_table(file: Path) -> "pa.Table":
    """A parquet or CSV file as an Arrow table; a CSV's cells are text or null. Raises what pyarrow raises."""
    if file.suffix == ".parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_table(file, use_threads=False)
    from pyarrow import csv

    with csv.open_csv(file) as reader:
        names = reader.schema.names
    import pyarrow

    convert = csv.ConvertOptions(
        column_types=dict.fromkeys(names, pyarrow.string()), null_values=list(NULLS), strings_can_be_null=True
    )
    return csv.read_csv(file, csv.ReadOptions(use_threads=False), convert_options=convert)


def as_array(column: Any) -> NDArray[Any]:
    """A pyarrow or numpy column as numpy: numbers with NaN for null, text with the empty word for null."""
    if isinstance(column, np.ndarray):
        return column
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _text(column)
    if pa.types.is_decimal(kind) or (
        column.null_count and (pa.types.is_integer(kind) or pa.types.is_null(kind))
    ):
        column = column.cast(pa.float64())
    array: NDArray[Any] = column.to_numpy()
    return array


def parsed(column: NDArray[Any]) -> NDArray[Any]:
    """Text that is all numbers (or missing) as float64; anything else as it is."""
    if column.dtype.kind not in "US":
        return column
    words, places = np.unique(column, return_inverse=True)
    try:
        values = np.array([np.nan if word in NULLS else float(word) for word in words], np.float64)
    except ValueError:
        return column
    return values[places]


def _text(column: Any) -> NDArray[np.str_]:
    """Text through its few different words: fast for millions of cells."""
    coded = column.combine_chunks().dictionary_encode()
    words: NDArray[np.str_] = np.array(["", *coded.dictionary.to_pylist()], np.str_)
    codes: NDArray[np.int64] = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return words[codes + 1]


def _numbers(shard: Shard, name: str, column: NDArray[Any], nullable: bool) -> NDArray[np.float64]:
    column = parsed(column)
    if column.dtype.kind in "US":
        _refuse_text(shard, name, column)
    if column.dtype.kind not in "iufb":
        shard.refuse(f"column {name!r} holds {column.dtype} such as {column[0]!r}, numbers are needed")
    numbers = column.astype(np.float64)
    missing = np.flatnonzero(np.isnan(numbers))
    if len(missing) and not nullable:
        shard.refuse(f"column {name!r} has no value in {len(missing)} rows, the first is row {missing[0]}")
    infinite = np.flatnonzero(np.isinf(numbers))
    if len(infinite):
        shard.refuse(f"column {name!r} is infinite in row {infinite[0]}, numbers must be finite")
    return numbers


def _refuse_text(shard: Shard, name: str, column: NDArray[Any]) -> NoReturn:
    for row, word in enumerate(column):
        if parsed(column[row : row + 1]).dtype.kind in "US":
            shard.refuse(f"column {name!r} holds the text {str(word)!r} in row {row}, a number is needed")
    raise AssertionError("all text can be read as numbers")


def _words(shard: Shard, name: str, column: NDArray[Any], nullable: bool) -> NDArray[np.str_]:
    words = as_words(column)
    missing = np.flatnonzero(words == "")
    if len(missing) and not nullable:
        shard.refuse(f"column {name!r} has no value in {len(missing)} rows, the first is row {missing[0]}")
    return words


def _side(shard: Shard, name: str, column: NDArray[Any]) -> NDArray[np.str_]:
    words = as_words(column)
    wrong = np.flatnonzero((words != TRAIN) & (words != TEST))
    if len(wrong):
        shard.refuse(
            f"column {name!r} holds {str(words[wrong[0]])!r} in row {wrong[0]}, allowed: {TRAIN}, {TEST}"
        )
    return words


def _array(shard: Shard, x: NDArray[Any], shape: tuple[int, ...], rows: int) -> NDArray[np.float32]:
    if x.shape != (rows, *shape) or x.dtype.kind not in "uif":
        shard.refuse(f"x is {x.dtype} of shape {x.shape}, {(rows, *shape)} numbers are needed")
    if x.dtype == np.uint8:
        return x.astype(np.float32) / np.float32(255)
    array = x.astype(np.float32)
    if not np.isfinite(array).all():
        shard.refuse(f"x holds {array[~np.isfinite(array)][0]}, numbers must be finite")
    return array
