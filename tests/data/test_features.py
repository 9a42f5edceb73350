"""Encoding and its refusals; the laws are in tests/laws/test_features_law.py."""

import json
import math
from typing import Any

import numpy as np
import pytest

from fedcore.data.features import Columns, Features, SiteStatistics, describe, merge
from fedcore.data.schema import Categorical, Numeric, Schema
from fedcore.data.statistics import as_words
from fedcore.errors import BadInput, CorruptState, TooFewClients

ARRAYS = Schema("pictures", "classification", "y", ("0", "1"), shape=(2, 2))


def columns(**changes: Any) -> Columns:
    """Three rows of the small schema."""
    plain = {
        "age": np.array([20.0, 40.0, 60.0]),
        "pulse": np.array([70.0, np.nan, 90.0]),
        "ward": np.array(["a", "b", "a"]),
    }
    return plain | changes


@pytest.fixture
def features(schema: Schema) -> Features:
    return merge([describe(columns(), schema)], schema)


def row(**changes: Any) -> dict[str, Any]:
    return {"age": 30, "pulse": None, "ward": "b"} | changes


def test_a_missing_number_becomes_the_mean_and_raises_its_flag(features: Features) -> None:
    assert features.names == ("age", "pulse", "pulse is missing", "ward=a", "ward=b")
    encoded = features.encode(columns())
    assert encoded.dtype == np.float32
    np.testing.assert_allclose(encoded[1], [0, 0, 1, 0, 1], atol=1e-7)
    np.testing.assert_allclose(encoded[0], [-math.sqrt(1.5), -1, 0, 1, 0], rtol=1e-6)


def test_an_unseen_or_missing_word_is_all_zeros(features: Features) -> None:
    encoded = features.encode(columns(ward=np.array(["", "z", "b"])))
    np.testing.assert_array_equal(encoded[:, 3:], [[0, 0], [0, 0], [0, 1]])


def test_a_column_that_never_varies_keeps_scale_one(schema: Schema) -> None:
    features = merge([describe(columns(age=np.full(3, 0.1 + 0.2)), schema)], schema)
    assert features.scales[0].scale == (1.0,)
    assert np.abs(features.encode(columns(age=np.full(3, 0.3)))[:, 0]).max() < 1e-6


def test_a_column_without_any_value_is_filled_with_zero(schema: Schema) -> None:
    features = merge([describe(columns(pulse=np.full(3, np.nan)), schema)], schema)
    assert features.scales[1].fill == (0.0,)
    np.testing.assert_array_equal(features.encode(columns(pulse=np.full(3, np.nan)))[:, 1:3], [[0, 1]] * 3)


def test_without_standardising_numbers_stay_and_missing_ones_are_the_mean(schema: Schema) -> None:
    features = merge([describe(columns(), schema)], schema, standardize=False)
    np.testing.assert_allclose(features.encode(columns())[:, :2], [[20, 70], [40, 80], [60, 90]])


def test_without_standardising_the_label_of_a_regression_stays() -> None:
    schema = Schema("r", "regression", "y", numeric=(Numeric("age"),))
    site = describe({"age": np.arange(3.0)}, schema, np.array([1.0, 2.0, 6.0]))
    assert merge([site], schema).target == (3.0, pytest.approx(np.std([1, 2, 6])))
    assert merge([site], schema, standardize=False).target == (0.0, 1.0)


def test_words_are_learned_from_the_sites_where_the_schema_lists_none() -> None:
    open_words = Schema("w", "classification", "y", ("0", "1"), categorical=(Categorical("ward"),))
    sites = [describe({"ward": np.array(words)}, open_words) for words in (["b", ""], ["a", "b"], [""])]
    assert merge(sites, open_words).vocabularies[0].words == ("a", "b")
    nothing = merge(sites[2:], open_words)
    assert nothing.encode({"ward": np.array(["a", "b"])}).shape == (2, 0)


def test_arrays_are_scaled_feature_by_feature_and_keep_their_shape() -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    features = merge([describe({"x": x}, ARRAYS)], ARRAYS)
    assert (features.input_shape, features.width) == ((2, 2), 4)
    np.testing.assert_allclose(features.encode({"x": x})[0], np.full((2, 2), -math.sqrt(1.5)), rtol=1e-6)
    sent = features.validate_rows([{"x": x[0].tolist()}])
    np.testing.assert_array_equal(features.encode(sent), features.encode({"x": x[:1]}))


def test_columns_of_other_shape_or_without_a_name_are_refused(features: Features) -> None:
    with pytest.raises(BadInput, match="column 'pulse' is missing; a row needs age, pulse, ward"):
        features.encode({"age": np.zeros(1), "ward": np.array(["a"])})
    pictures = merge([describe({"x": np.zeros((1, 2, 2))}, ARRAYS)], ARRAYS)
    with pytest.raises(BadInput, match=r"shape \(3,\), the model takes \(2, 2\)"):
        pictures.encode({"x": np.zeros((1, 3))})


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (row(height=2), "row 1: unknown column 'height'; known: age, pulse, ward"),
        ({"age": 1, "ward": "a"}, "row 1: column 'pulse' is missing"),
        (row(age="old"), "row 1, column 'age': must be a number, got 'old'"),
        (row(age=True), "row 1, column 'age': must be a number, got True"),
        (row(age=None), "row 1, column 'age': must be a number, got None"),
        (row(age=math.inf), "row 1, column 'age': must be finite, got inf"),
        (row(age=10**400), "row 1, column 'age': must be finite, got inf"),
        (row(pulse=math.nan), "row 1, column 'pulse': must be finite, got nan"),
        (row(ward=None), "row 1, column 'ward': must be text, got None"),
        (row(ward=1.5), "row 1, column 'ward': must be text, got 1.5"),
        ([1, 2], "row 1 is a list, not an object"),
    ],
)
def test_a_bad_row_is_named_with_its_column(features: Features, bad: Any, sentence: str) -> None:
    with pytest.raises(BadInput) as refusal:
        features.validate_rows([row(), bad])
    assert str(refusal.value).startswith(sentence)


@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        ([[1, 2], [3]], "lists of different lengths"),
        ([[1, 2, 3]], "must be numbers of shape (2, 2), got int64 of (1, 3)"),
        ([["a", "b"], ["c", "d"]], "must be numbers of shape (2, 2), got <U1"),
        ([[1, 2], [3, math.nan]], "must be finite, got nan"),
        ([[1, 2], [3, 1e300]], "must be finite, got inf"),
    ],
)
def test_a_bad_array_is_named_with_its_row(x: Any, sentence: str) -> None:
    features = merge([describe({"x": np.zeros((1, 2, 2))}, ARRAYS)], ARRAYS)
    with pytest.raises(BadInput, match="row 0, column 'x'") as refusal:
        features.validate_rows([{"x": x}])
    assert sentence in str(refusal.value)


def test_no_rows_are_refused(features: Features) -> None:
    with pytest.raises(BadInput, match="no rows; send at least one"):
        features.validate_rows([])


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("scales", 3),
        ("scales", [{"name": "age"}]),
        ("scales", [{"name": "a", "center": [0], "scale": [0], "fill": [0], "nullable": False}]),
        ("scales", [{"name": "a", "center": [0], "scale": [1, 2], "fill": [0], "nullable": False}]),
        ("vocabularies", [{"name": "w", "words": ["b", "a"], "nullable": False}]),
        ("shape", [2]),
        ("shape", [-1]),
    ],
)
def test_features_that_were_not_written_by_us_are_corrupt(features: Features, part: str, value: Any) -> None:
    tree = json.loads(features.to_json()) | {part: value}
    with pytest.raises(CorruptState, match="train again"):
        Features.from_json(json.dumps(tree))


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("rows", -1),
        ("rows", 1.5),
        ("numeric", {"age": {"count": 1, "missing": 0, "mean": [1], "m2": [-1]}}),
        ("numeric", {"age": {"count": 1, "missing": 0, "mean": [1, 2], "m2": [1]}}),
        ("numeric", {"age": {"count": 1, "missing": 0, "mean": [float("inf")], "m2": [1]}}),
        ("words", {"ward": [1]}),
        ("words", {"ward": ["a", "a"]}),
        ("words", []),
    ],
)
def test_statistics_that_cannot_be_are_refused(schema: Schema, part: str, value: Any) -> None:
    tree = describe(columns(), schema).tree() | {part: value}
    with pytest.raises(BadInput, match="describe the site again"):
        SiteStatistics.from_tree(tree)


def test_statistics_of_other_columns_are_refused(schema: Schema) -> None:
    other = Schema("o", "classification", "sick", ("0", "1"), numeric=(Numeric("age"),))
    with pytest.raises(BadInput, match="do not fit the schema at 'pulse'"):
        merge([describe(columns(), other)], schema)
    wide = Schema("o", "classification", "y", ("0", "1"), shape=(3,))
    with pytest.raises(BadInput, match="do not fit the schema at 'x'"):
        merge([describe({"x": np.zeros((1, 3))}, wide)], ARRAYS)


def test_a_site_cannot_overflow_the_merge(schema: Schema) -> None:
    tree = describe(columns(), schema).tree()
    tree["numeric"]["age"] |= {"mean": [1e300]}
    with pytest.raises(BadInput, match="column 'age': a site's numbers are too large"):
        merge([describe(columns(), schema), SiteStatistics.from_tree(tree)], schema)


def test_without_sites_there_are_no_features(schema: Schema) -> None:
    with pytest.raises(TooFewClients, match="needs at least 1 clients, got 0"):
        merge([], schema)


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (np.array([1, 2]), ["1", "2"]),
        (np.array([1.0, 2.5, np.nan]), ["1", "2.5", ""]),
        (np.array(["x", None, float("nan"), 3], dtype=object), ["x", "", "", "3"]),
        (np.array([True, False]), ["True", "False"]),
    ],
)
def test_words_of_a_column_do_not_depend_on_how_it_was_stored(column: np.ndarray, words: list[str]) -> None:
    assert as_words(column).tolist() == words
