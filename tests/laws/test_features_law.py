"""Laws of federated feature statistics: what the sites say equals what the pooled rows would."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedcore.data.features import Columns, Features, SiteStatistics, describe, merge
from fedcore.data.schema import Categorical, Numeric, Schema
from fedcore.rng import generator

SCHEMA = Schema(
    dataset="law",
    task="classification",
    label="late",
    classes=("0", "1"),
    numeric=(Numeric("temp", nullable=True), Numeric("distance")),
    categorical=(Categorical("origin"), Categorical("note", nullable=True)),
)
IMAGES = Schema(dataset="law", task="classification", label="y", classes=("0", "1"), shape=(3, 2))


def table(seed: int, rows: int) -> Columns:
    """Rows with missing temperatures far from zero, and words of which some sites lack a few."""
    rng = generator(seed, "table")
    temp = rng.normal(1e3, 5.0, rows)
    temp[rng.random(rows) < 0.2] = np.nan
    return {
        "temp": temp,
        "distance": rng.exponential(700.0, rows),
        "origin": rng.choice(["EWR", "JFK", "LGA"], rows),
        "note": rng.choice(["", "a", "b"], rows),
    }


def parts(columns: Columns, cuts: list[int]) -> list[Columns]:
    """`columns` cut into sites at row numbers `cuts`."""
    edges = [0, *cuts, len(columns["distance"])]
    return [{n: c[a:b] for n, c in columns.items()} for a, b in itertools.pairwise(edges)]


def assert_same(left: Features, right: Features) -> None:
    """Equal to 1e-12 of each scale, and the same words."""
    assert left.vocabularies == right.vocabularies
    for a, b in zip(left.scales, right.scales, strict=True):
        np.testing.assert_allclose(a.center, b.center, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(a.scale, b.scale, rtol=1e-12, atol=1e-12)


@given(st.integers(0, 2**32), st.lists(st.integers(0, 200), max_size=6))
@settings(deadline=None)
def test_merged_statistics_equal_the_pooled_ones(seed: int, cuts: list[int]) -> None:
    columns = table(seed, 200)
    merged = merge([describe(site, SCHEMA) for site in parts(columns, sorted(cuts))], SCHEMA)
    assert_same(merged, merge([describe(columns, SCHEMA)], SCHEMA))
    present = columns["temp"][~np.isnan(columns["temp"])]
    np.testing.assert_allclose(merged.scales[0].center[0], present.mean(), rtol=1e-12)
    np.testing.assert_allclose(merged.scales[0].scale[0], present.std(), rtol=1e-12)


@given(arrays(np.float32, (20, 3, 2), elements=st.floats(-100, 100, width=32)), st.integers(1, 19))
@settings(deadline=None)
def test_merged_statistics_of_arrays_equal_the_pooled_ones(x: np.ndarray, cut: int) -> None:
    merged = merge([describe({"x": x[:cut]}, IMAGES), describe({"x": x[cut:]}, IMAGES)], IMAGES)
    pooled = merge([describe({"x": x}, IMAGES)], IMAGES)
    np.testing.assert_allclose(merged.scales[0].center, pooled.scales[0].center, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(merged.encode({"x": x}), pooled.encode({"x": x}), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_the_order_of_the_sites_changes_no_bit(order: tuple[int, ...]) -> None:
    sites = [describe(site, SCHEMA) for site in parts(table(3, 120), [1, 40, 90])]
    assert merge([sites[i] for i in order], SCHEMA).to_json() == merge(sites, SCHEMA).to_json()


@given(st.integers(0, 2**32), st.integers(0, 50))
@settings(deadline=None)
def test_what_is_written_is_read_back(seed: int, rows: int) -> None:
    statistics = describe(table(seed, rows), SCHEMA)
    assert SiteStatistics.from_tree(json.loads(json.dumps(statistics.tree()))) == statistics
    features = merge([statistics], SCHEMA)
    assert Features.from_json(features.to_json()) == features


@given(st.integers(0, 2**32))
@settings(deadline=None)
def test_encoded_numbers_have_mean_zero_and_deviation_one_and_words_are_one_hot(seed: int) -> None:
    columns = table(seed, 300)
    features = merge([describe(columns, SCHEMA)], SCHEMA)
    encoded = features.encode(columns).astype(np.float64)
    assert encoded.shape == (300, features.width) == (300, len(features.names))
    present = encoded[encoded[:, 1] == 0, 0]
    assert abs(present.mean()) < 1e-4
    assert abs(present.std() - 1) < 1e-4
    assert (encoded[encoded[:, 1] == 1, 0] == 0).all()
    origins = encoded[:, [i for i, name in enumerate(features.names) if name.startswith("origin=")]]
    assert (origins.sum(axis=1) == 1).all()


@given(st.integers(0, 2**32), st.integers(1, 40))
@settings(deadline=None)
def test_rows_sent_to_a_device_encode_like_the_columns_they_came_from(seed: int, rows: int) -> None:
    columns = table(seed, rows)
    features = merge([describe(columns, SCHEMA)], SCHEMA)
    sent = [
        {
            "temp": None if np.isnan(columns["temp"][i]) else float(columns["temp"][i]),
            "distance": float(columns["distance"][i]),
            "origin": str(columns["origin"][i]),
            "note": str(columns["note"][i]) or None,
        }
        for i in range(rows)
    ]
    np.testing.assert_array_equal(features.encode(features.validate_rows(sent)), features.encode(columns))
