"""Population stability: laws of the index, and that summed histograms are the pooled one's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcore.data.features import describe, merge
from fedcore.data.schema import Categorical, Numeric, Schema
from fedcore.errors import BadData, BadInput
from fedcore.monitor.drift import count_shards, histogram, merged, stability
from fedcore.rng import generator

SCHEMA = Schema(
    "toy",
    "classification",
    "y",
    ("0", "1"),
    (Numeric("t", nullable=True),),
    (Categorical("o", nullable=True),),
)
counts = st.lists(st.integers(0, 1000), min_size=3, max_size=3).filter(any).map(np.array)


def _columns(seed, shift=0.0, rows=2000, words=("a", "b")):
    rng = generator(seed, "drift")
    t = rng.normal(shift, 1, rows)
    t[::10] = np.nan
    return {"t": t, "o": np.array(words)[rng.integers(0, len(words), rows)]}


FEATURES = merge([describe(_columns(1), SCHEMA)], SCHEMA)


@given(counts, counts)
def test_the_index_is_symmetric_never_negative_and_zero_for_the_same_shares(p, q):
    there, back = stability({"c": p}, {"c": q})["c"], stability({"c": q}, {"c": p})["c"]
    assert there >= 0
    assert there == pytest.approx(back)
    assert stability({"c": p}, {"c": p})["c"] == 0


@given(st.permutations([0, 1, 2]), counts, counts)
def test_the_order_of_bins_does_not_matter(order, p, q):
    assert stability({"c": p}, {"c": q})["c"] == pytest.approx(
        stability({"c": p[order]}, {"c": q[order]})["c"]
    )


def test_it_agrees_with_the_definition():
    p, q = np.array([500, 500]), np.array([900, 100])
    expected = 0.4 * np.log(0.9 / 0.5) - 0.4 * np.log(0.1 / 0.5)
    assert stability({"c": p}, {"c": q})["c"] == pytest.approx(expected, rel=0.01)


def test_summed_sites_count_like_pooled_rows():
    columns = _columns(2)
    parts = [{name: column[i::3] for name, column in columns.items()} for i in range(3)]
    together = merged(histogram(part, FEATURES) for part in parts)
    for name, pooled in histogram(columns, FEATURES).items():
        np.testing.assert_array_equal(together[name], pooled)
        assert pooled.sum() == 2000


def test_drift_grows_with_the_shift_and_new_words():
    reference = histogram(_columns(1), FEATURES)
    shifts = [
        stability(reference, histogram(_columns(9, shift), FEATURES))["t"] for shift in (0.0, 0.5, 1.0, 2.0)
    ]
    assert shifts == sorted(shifts)
    assert shifts[0] < 0.02
    assert shifts[2] > 0.25
    new = stability(reference, histogram(_columns(9, words=("a", "c")), FEATURES))
    assert new["o"] > 1 > 0.02 > new["t"]


def test_missing_values_appearing_are_drift():
    columns = _columns(9)
    columns["t"][:1000] = np.nan
    columns["o"] = np.where(np.arange(2000) < 1000, "", columns["o"])
    moved = stability(histogram(_columns(1), FEATURES), histogram(columns, FEATURES))
    assert moved["t"] > 0.25
    assert moved["o"] > 0.25


def test_arrays_are_watched_by_the_mean_of_their_rows():
    schema = Schema("x", "classification", "y", ("0", "1"), shape=(2, 3))
    x = generator(5, "x").normal(size=(500, 2, 3))
    features = merge([describe({"x": x}, schema)], schema)
    reference = histogram({"x": x}, features)
    assert reference["x"].sum() == 500
    assert stability(reference, histogram({"x": x + 2}, features))["x"] > 0.25


def test_shard_files_of_several_sites_are_counted_together(tmp_path):
    for site, text in (("a", "t,o,y\n1,a,0\n,b,1\n"), ("b", "t,o,y\n2,a,1\n")):
        (tmp_path / f"{site}.csv").write_text(text)
    found = count_shards(sorted(tmp_path.glob("*.csv")), SCHEMA, FEATURES)
    assert found["o"].tolist() == [2, 1, 0, 0]
    assert found["t"][-1] == 1
    (tmp_path / "c.csv").write_text("t\n1\n")
    with pytest.raises(BadData):
        count_shards(sorted(tmp_path.glob("*.csv")), SCHEMA, FEATURES)


def test_what_cannot_be_compared_is_refused():
    some = {"c": np.array([1, 2])}
    with pytest.raises(BadInput, match="different bins"):
        stability(some, {"c": np.array([1, 2, 3])})
    with pytest.raises(BadInput, match="no rows to compare in column 'c'"):
        stability(some, {"c": np.array([0, 0])})
    with pytest.raises(BadInput, match="two sites counted in different bins"):
        merged([some, {"d": np.array([1, 2])}])
    with pytest.raises(BadInput, match="column 'o' is missing"):
        histogram({"t": np.zeros(3)}, FEATURES)
