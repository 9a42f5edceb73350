"""Reading a site's files, splitting its rows, and the sentence for each broken file."""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcore.data.features import merge
from fedcore.data.federated import load_site, read_columns, split, targets, train_statistics
from fedcore.data.schema import Numeric, Schema
from fedcore.errors import BadData, CorruptState

Rows = Callable[..., dict[str, list[Any]]]
Lay = Callable[[Path, dict[str, list[Any]]], Path]


@given(st.integers(0, 300), st.integers(0, 2**20), st.floats(0.01, 0.99))
def test_a_split_uses_every_row_once_and_leaves_no_side_empty(n: int, seed: int, fraction: float) -> None:
    train, test = split(n, seed, "site", fraction)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(n))
    assert n < 2 or (len(train) and len(test))
    assert n != 1 or len(train) == 1


@given(st.integers(100, 300), st.integers(0, 200), st.integers(0, 2**20))
def test_a_row_keeps_its_side_when_rows_are_added(n: int, more: int, seed: int) -> None:
    _, before = split(n, seed, "site", 0.3)
    _, after = split(n + more, seed, "site", 0.3)
    np.testing.assert_array_equal(before, after[after < n])


def test_sites_are_split_independently() -> None:
    assert not np.array_equal(split(100, 1, "a", 0.2)[1], split(100, 1, "b", 0.2)[1])


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_both_kinds_of_table_give_the_same_columns(
    suffix: str, schema: Schema, rows: Rows, lay: Lay, tmp_path: Path
) -> None:
    written = rows()
    columns, labels = read_columns(lay(tmp_path / "ward-1" / f"rows.{suffix}", written), schema)
    np.testing.assert_array_equal(columns["age"], written["age"])
    np.testing.assert_array_equal(np.isnan(columns["pulse"]), [p is None for p in written["pulse"]])
    assert columns["ward"].tolist() == written["ward"]
    assert labels.tolist() == [str(label) for label in written["sick"]]


def test_shards_follow_each_other_in_the_order_of_their_names(
    schema: Schema, rows: Rows, lay: Lay, tmp_path: Path
) -> None:
    lay(tmp_path / "s" / "2.csv", rows(3, seed=2))
    lay(tmp_path / "s" / "1.parquet", rows(4, seed=1))
    lay(
        tmp_path / "s" / "3.npz",
        {n: c for n, c in rows(5, seed=3).items() if n != "pulse"} | {"pulse": [1.0] * 5},
    )
    columns, labels = read_columns(tmp_path / "s", schema)
    expected = [age for count, seed in ((4, 1), (3, 2), (5, 3)) for age in rows(count, seed=seed)["age"]]
    np.testing.assert_array_equal(columns["age"], expected)
    assert len(labels) == 12


def test_a_site_is_described_by_its_training_rows_only(
    schema: Schema, rows: Rows, lay: Lay, tmp_path: Path
) -> None:
    folder = lay(tmp_path / "s" / "rows.parquet", rows(50))
    statistics = train_statistics(folder, schema, 1, "s", 0.2)
    train, test = split(50, 1, "s", 0.2)
    assert statistics.rows == len(train)
    np.testing.assert_allclose(statistics.numeric["age"].mean[0], np.mean(np.array(rows(50)["age"])[train]))
    data = load_site(folder, schema, merge([statistics], schema), 1, "s", 0.2)
    assert data.x_train.shape == (len(train), 5)
    assert data.y_test.tolist() == [float(rows(50)["sick"][i]) for i in test]
    assert data.x_test.dtype == data.y_train.dtype == np.float32


def test_classes_are_numbered_in_the_order_of_the_schema() -> None:
    schema = Schema("s", "classification", "y", ("no", "maybe", "yes"))
    assert targets(np.array(["yes", "no", "maybe"]), schema, "s").tolist() == [2, 0, 1]
    with pytest.raises(BadData, match="label 'y' holds 'never', allowed: no, maybe, yes"):
        targets(np.array(["never"]), schema, "s")


def test_the_label_of_a_regression_keeps_its_unit(lay: Lay, tmp_path: Path) -> None:
    schema = Schema("s", "regression", "price", numeric=(Numeric("size"),))
    folder = lay(tmp_path / "s" / "rows.csv", {"size": [1, 2, 3], "price": [10.5, 20, 30]})
    data = load_site(
        folder, schema, merge([train_statistics(folder, schema, 1, "s", 0.4)], schema), 1, "s", 0.4
    )
    assert sorted([*data.y_train.tolist(), *data.y_test.tolist()]) == [10.5, 20, 30]


def test_arrays_of_bytes_are_shares_of_255(tmp_path: Path) -> None:
    schema = Schema("p", "classification", "y", ("0", "1"), shape=(2,))
    (tmp_path / "s").mkdir()
    np.savez(tmp_path / "s" / "rows.npz", x=np.array([[0, 255], [51, 0]], np.uint8), y=np.array([0, 1]))
    columns, labels = read_columns(tmp_path / "s", schema)
    np.testing.assert_allclose(columns["x"], [[0, 1], [0.2, 0]])
    assert labels.tolist() == ["0", "1"]


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"age": None}, "data of s/rows.{suffix}: column 'age' is missing, the file has pulse, ward, sick"),
        ({"sick": None}, "column 'sick' is missing"),
        ({"age": ["old", "30", "x"]}, "column 'age' holds the text 'old' in row 0, a number is needed"),
        ({"age": ["30", None, "31"]}, "column 'age' has no value in 1 rows, the first is row 1"),
        ({"age": ["30", "inf", "31"]}, "column 'age' is infinite in row 1"),
        ({"ward": ["a", "b", None]}, "column 'ward' has no value in 1 rows, the first is row 2"),
        ({"sick": ["0", "2", "1"]}, "label 'sick' holds '2' in row 1, allowed: 0, 1"),
        ({"sick": ["0", "1", None]}, "column 'sick' has no value in 1 rows"),
    ],
)
def test_a_broken_table_is_refused_by_site_file_column_and_value(
    suffix: str, change: dict[str, Any], sentence: str, schema: Schema, rows: Rows, lay: Lay, tmp_path: Path
) -> None:
    columns = {name: column for name, column in (rows(3) | change).items() if column is not None}
    with pytest.raises(BadData) as refusal:
        read_columns(lay(tmp_path / "s" / f"rows.{suffix}", columns), schema)
    assert sentence.format(suffix=suffix) in str(refusal.value)


def test_dates_in_a_number_are_refused(schema: Schema, rows: Rows, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    dates = pa.array([1, 2, 3], pa.timestamp("s"))
    pq.write_table(pa.table(rows(3) | {"age": dates}), tmp_path / "s" / "rows.parquet")
    with pytest.raises(BadData, match="column 'age' holds datetime64"):
        read_columns(tmp_path / "s", schema)


@pytest.mark.parametrize("kind", [pa.int64(), pa.decimal128(8, 2), pa.null()])
def test_every_way_to_store_a_number_with_gaps_is_read(
    kind: pa.DataType, schema: Schema, rows: Rows, tmp_path: Path
) -> None:
    (tmp_path / "s").mkdir()
    values = [None, None, None] if pa.types.is_null(kind) else [Decimal(70), None, Decimal(80)]
    coded = pa.array(["a", "b", "a"]).dictionary_encode()
    table = pa.table(
        rows(3)
        | {
            "pulse": pa.array(
                [v if v is None or not pa.types.is_integer(kind) else int(v) for v in values], kind
            ),
            "ward": coded,
        }
    )
    pq.write_table(table, tmp_path / "s" / "rows.parquet")
    columns, _ = read_columns(tmp_path / "s", schema)
    np.testing.assert_array_equal(columns["pulse"], [np.nan if v is None else float(v) for v in values])
    assert columns["ward"].tolist() == ["a", "b", "a"]


@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv", "rows.npz"])
def test_a_file_that_is_none_is_refused(name: str, schema: Schema, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / name).write_bytes(b"")
    with pytest.raises(BadData, match=rf"data of s/{name}: the file cannot be read: .+"):
        read_columns(tmp_path / "s", schema)


def test_a_table_without_rows_is_refused(schema: Schema, tmp_path: Path, rows: Rows, lay: Lay) -> None:
    with pytest.raises(BadData, match="the file has no rows"):
        read_columns(lay(tmp_path / "s" / "rows.csv", rows(0)), schema)


def test_a_folder_without_files_is_refused(schema: Schema, tmp_path: Path) -> None:
    with pytest.raises(BadData, match="there is no folder"):
        read_columns(tmp_path / "s", schema)
    (tmp_path / "s").mkdir()
    with pytest.raises(BadData, match=r"holds no \.parquet, \.csv, \.npz file"):
        read_columns(tmp_path / "s", schema)


def test_pickled_objects_are_never_loaded(schema: Schema, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    np.savez(tmp_path / "s" / "rows.npz", age=np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(BadData, match="cannot be read: Object arrays cannot be loaded"):
        read_columns(tmp_path / "s", schema)


@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (np.zeros((2, 3)), r"x is float64 of shape \(2, 3\), \(2, 2\) numbers are needed"),
        (np.full((2, 2), np.nan), "x holds nan, numbers must be finite"),
        (np.array([["a", "b"], ["c", "d"]]), "x is <U1 of shape"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(x: np.ndarray, sentence: str, tmp_path: Path) -> None:
    schema = Schema("p", "classification", "y", ("0", "1"), shape=(2,))
    (tmp_path / "s").mkdir()
    np.savez(tmp_path / "s" / "rows.npz", x=x, y=np.array([0, 1]))
    with pytest.raises(BadData, match=sentence):
        read_columns(tmp_path / "s", schema)


def test_named_arrays_of_different_lengths_are_refused(schema: Schema, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    np.savez(
        tmp_path / "s" / "rows.npz",
        age=np.zeros(2),
        pulse=np.zeros(3),
        ward=np.array(["a"] * 2),
        sick=np.array([0, 1]),
    )
    with pytest.raises(BadData, match=r"column 'pulse' has shape \(3,\), the label \(2,\)"):
        read_columns(tmp_path / "s", schema)


def test_a_schema_is_read_back_and_a_broken_one_is_corrupt(schema: Schema, tmp_path: Path) -> None:
    schema.save(tmp_path)
    assert Schema.load(tmp_path) == schema
    (tmp_path / "schema.json").write_text("{}")
    with pytest.raises(CorruptState, match=r"schema.json is not a schema"):
        Schema.load(tmp_path)
    with pytest.raises(CorruptState, match="cannot read"):
        Schema.load(tmp_path / "nowhere")
