"""What people do, by their phones: UCI HAR and WISDM, from tiny files of the published form and from the published ones."""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from fedcore.config import DataConfig
from fedcore.data import har, wisdm
from fedcore.data.catalog import ingest
from fedcore.data.features import merge
from fedcore.data.federated import load_site, train_statistics
from fedcore.data.partition import partition
from fedcore.data.schema import Schema
from fedcore.errors import BadData
from fedcore.rng import generator

published = pytest.mark.skipif("FEDCORE_DATA" not in os.environ, reason="the windows are not here")
FIRST = [0, 1, 3, 4, 6, 8, 9, 11]  # two segments of two windows, which share half, two of one, one of two


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDCORE_DATA", str(tmp_path))
    (tmp_path / "uci_har").mkdir()
    (tmp_path / "wisdm_har").mkdir()
    return tmp_path


def lay_signals(place: Path, **changed: Any) -> np.ndarray:
    """The half windows (halves, 64, 9) that were written."""
    halves = generator(1, "signals").normal(size=(13, 64, 9)).astype("<f4")
    planes = np.ascontiguousarray(halves.transpose(2, 0, 1)).reshape(-1, 1).view(np.uint8).T
    arrays = {
        "planes": planes,
        "first": np.array(FIRST),
        "y": np.array([0, 0, 1, 1, 5, 2, 2, 4], np.uint8),
        "subject": np.array([7, 7, 7, 7, 7, 12, 12, 12], np.uint8),
        "segment": np.array([2, 2, 3, 3, 4, 6, 6, 7]),
    }
    np.savez(place / "uci_har" / "uci_har.npz", **(arrays | changed))
    return halves


def test_windows_are_put_together_from_halves_by_subject(place: Path) -> None:
    halves = lay_signals(place)
    schema = ingest(DataConfig("uci-har"), place / "raw")
    with np.load(place / "raw" / "raw.npz") as raw:
        assert raw["x"].shape == (8, *schema.shape)
        np.testing.assert_array_equal(raw["x"], [np.concatenate(halves[i : i + 2]) for i in FIRST])
        assert raw["client"].tolist() == ["subject-07"] * 5 + ["subject-12"] * 3
        assert raw["activity"].tolist()[3:6] == ["upstairs", "laying", "downstairs"]


def test_no_half_window_is_on_both_sides_of_the_division(place: Path) -> None:
    lay_signals(place)
    config = DataConfig("uci-har")
    ingest(config, place / "raw")
    assert partition(place / "raw", place / "sites", config, 1) == ["subject-07", "subject-12"]
    schema = Schema.load(place / "sites")
    features = merge([train_statistics(place / "sites" / "subject-07", schema, 1, "s", 0.5)], schema, False)
    for seed in (1, 2):
        site = load_site(place / "sites" / "subject-07", schema, features, seed, "s", 0.5)
        assert site.y_test.tolist() == [1, 1]
        halves = [
            {half.tobytes() for x in side for half in np.split(x, 2)} for side in (site.x_train, site.x_test)
        ]
        assert not halves[0] & halves[1]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"y": np.zeros(7, np.uint8)}, "must have the 8 rows of first"),
        ({"y": np.full(8, 6, np.uint8)}, "index 6 is out of bounds"),
        ({"first": np.arange(6, 14)}, "out of bounds"),
        ({"planes": np.zeros((4, 65), np.uint8)}, "cannot reshape"),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(
    place: Path, changed: dict[str, Any], why: str
) -> None:
    lay_signals(place, **changed)
    with pytest.raises(BadData, match=rf"uci_har.npz does not hold its arrays \(.*{why}.*\); copy it again"):
        ingest(DataConfig("uci-har"), place / "raw")


def test_a_broken_file_of_windows_is_refused(place: Path) -> None:
    lay_signals(place)
    file = place / "uci_har" / "uci_har.npz"
    whole = file.read_bytes()
    np.savez(file, planes=np.zeros((4, 64), np.uint8))
    for content in (file.read_bytes(), whole[:-30], whole[:300] + b"odd" + whole[303:], b""):
        file.write_bytes(content)
        with pytest.raises(BadData, match="uci_har.npz does not hold its arrays"):
            ingest(DataConfig("uci-har"), place / "raw")


def lay_windows(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """User 8 with a window more than once, and user 12."""
    numbers = ",".join(f"{n / 100}" for n in range(33)) + ",?,250,?," + ",".join("1" * 7)
    lines = [
        f"1,8,{numbers},Jogging",
        f"2,8,{numbers},Sitting",
        f"7,8,{numbers},Jogging",
        f"1,12,{numbers},Jogging",
    ]
    content = ("@relation small\r\n\r\n@data\r\n" + "\r\n".join(lines) + "\r\n").encode()
    (place / "wisdm_har" / wisdm.FILE).write_bytes(content)
    monkeypatch.setattr(wisdm, "SHA256", hashlib.sha256(content).hexdigest())


def test_windows_are_by_user_and_one_that_repeats_another_is_left_out(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_windows(place, monkeypatch)
    schema = ingest(DataConfig("wisdm"), place / "raw")
    table = pq.read_table(place / "raw" / "raw.parquet")
    assert table["client"].to_pylist() == ["user-08", "user-08", "user-12"]
    assert table["activity"].to_pylist() == ["Jogging", "Sitting", "Jogging"]
    assert table["Y1"].to_pylist() == [0.11] * 3
    assert table["YPEAK"].to_pylist() == [250] * 3
    assert len(schema.columns) == 43


def test_a_peak_that_is_missing_is_told_to_the_model(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_windows(place, monkeypatch)
    config = DataConfig("wisdm")
    ingest(config, place / "raw")
    partition(place / "raw", place / "sites", config, 1)
    schema = Schema.load(place / "sites")
    features = merge([train_statistics(place / "sites" / "user-08", schema, 1, "u", 0.5)], schema)
    site = load_site(place / "sites" / "user-08", schema, features, 1, "u", 0.5)
    told = dict(zip(features.names, site.x_train[0], strict=True))
    assert [told[f"{axis}PEAK is missing"] for axis in "XYZ"] == [1, 0, 1]
    assert len(told) == 46


def test_another_file_of_windows_is_refused_by_its_digest(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_windows(place, monkeypatch)
    file = place / "wisdm_har" / wisdm.FILE
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(
        BadData, match=r"transformed.arff is not the published file \(SHA-256\); copy it again"
    ):
        ingest(DataConfig("wisdm"), place / "raw")


@pytest.mark.parametrize("name", ["uci-har", "wisdm"])
def test_a_set_that_is_not_here_says_how_to_get_it(place: Path, name: str) -> None:
    with pytest.raises(BadData, match=r"it is not on this machine.*put \w+\.\w+.* into a folder"):
        ingest(DataConfig(name), place / "raw")


@published
def test_the_published_counts_of_uci_har_come_out(tmp_path: Path) -> None:
    ingest(DataConfig("uci-har"), tmp_path / "raw")
    with np.load(tmp_path / "raw" / "raw.npz") as raw:
        arrays = dict(raw)
    counts = {name: int((arrays["activity"] == name).sum()) for name in har.ACTIVITIES}
    assert list(counts.values()) == [1722, 1544, 1406, 1777, 1906, 1944]
    subjects, windows = np.unique(arrays["client"], return_counts=True)
    assert (len(subjects), windows.min(), windows.max()) == (30, 281, 409)
    own = np.isin(arrays["client"], [f"subject-{n:02d}" for n in (2, 4, 9, 10, 12, 13, 18, 20, 24)])
    assert own.sum() == 2947  # the published test set's people
    test = arrays["split"] == "test"
    assert test.sum() == 2569
    sides = [{half.tobytes() for x in arrays["x"][s] for half in np.split(x, 2)} for s in (test, ~test)]
    assert not sides[0] & sides[1]


@published
def test_the_published_counts_of_wisdm_come_out(tmp_path: Path) -> None:
    schema = ingest(DataConfig("wisdm"), tmp_path / "raw")
    table = pq.read_table(tmp_path / "raw" / "raw.parquet")
    assert table.num_rows == 5418 - 61
    assert len(table["client"].unique()) == 36
    assert set(table["activity"].to_pylist()) == set(schema.classes)
    missing = {name: table[name].null_count for name in schema.columns if table[name].null_count}
    assert list(missing) == ["XPEAK", "YPEAK", "ZPEAK"]
