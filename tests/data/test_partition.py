"""From the raw folder to the sites' folders: natural clients, made ones, equal bytes, nothing half-written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from fedcore.config import DataConfig, PartitionConfig
from fedcore.data.catalog import ingest
from fedcore.data.federated import read_columns
from fedcore.data.partition import partition, sites, write_site
from fedcore.data.schema import Schema
from fedcore.errors import BadConfig, BadInput, CorruptState, StorageError, UnknownName

Rows = Callable[..., dict[str, list[Any]]]
Lay = Callable[[Path, dict[str, list[Any]]], Path]
Own = Callable[..., tuple[Path, DataConfig]]


@pytest.fixture
def own(tmp_path: Path, rows: Rows, lay: Lay) -> Own:
    """Ingests a table of three hospitals and gives the raw folder and its settings."""

    def make(
        hospitals: tuple[str, ...] = ("x", "y", "z"), label: str = "sick", **changes: Any
    ) -> tuple[Path, DataConfig]:
        count = 10 * len(hospitals)
        table = rows(count) | {"hospital": list(hospitals) * 10}
        lay(tmp_path / "t.csv", table)
        task = "regression" if label == "age" else "classification"
        config = DataConfig(
            name="own",
            path=str(tmp_path / "t.csv"),
            client_column="hospital",
            label=label,
            task=task,
            **changes,
        )
        ingest(config, tmp_path / "raw")
        return tmp_path / "raw", config

    return make


def content(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_natural_clients_get_their_own_rows_and_no_one_else_s(own: Own, rows: Rows, tmp_path: Path) -> None:
    raw, config = own()
    assert partition(raw, tmp_path / "sites", config, 1) == ["x", "y", "z"] == sites(raw, config, 1)
    columns, _ = read_columns(tmp_path / "sites" / "y", Schema.load(tmp_path / "sites"))
    np.testing.assert_array_equal(columns["age"], rows(30)["age"][1::3])
    assert "client" not in pq.read_schema(tmp_path / "sites" / "y" / "rows.parquet").names


@pytest.mark.parametrize("scheme", ["natural", "iid", "dirichlet", "labels", "quantity"])
@pytest.mark.parametrize("label", ["sick", "age"])
def test_one_site_written_alone_has_the_bytes_of_all_written_together(
    scheme: Any, label: str, own: Own, tmp_path: Path
) -> None:
    settings = PartitionConfig(
        scheme, clients=3, alpha=5.0, labels_per_client=2 if label == "sick" else 8, min_rows=1
    )
    raw, config = own(label=label, partition=settings)
    names = partition(raw, tmp_path / "sites", config, 1)
    for site in names:
        write_site(raw, site, tmp_path / "alone", config, 1)
    assert content(tmp_path / "alone") == content(tmp_path / "sites")
    assert len(names) == 3
    total = sum(len(read_columns(tmp_path / "sites" / s, Schema.load(raw))[1]) for s in names)
    assert total == 30


def test_arrays_are_split_by_client_and_by_partitioner(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "t.npz", x=np.arange(12.0).reshape(6, 2), y=np.arange(6) % 2, who=np.array(["a", "b"] * 3)
    )
    config = DataConfig(name="own", path=str(tmp_path / "t.npz"), client_column="who")
    schema = ingest(config, tmp_path / "raw")
    assert partition(tmp_path / "raw", tmp_path / "sites", config, 1) == ["a", "b"]
    columns, labels = read_columns(tmp_path / "sites" / "b", schema)
    np.testing.assert_array_equal(columns["x"][:, 0], [2, 6, 10])
    assert labels.tolist() == ["1"] * 3
    write_site(tmp_path / "raw", "b", tmp_path / "alone", config, 1)
    assert content(tmp_path / "alone" / "b") == content(tmp_path / "sites" / "b")
    made = DataConfig(name="own", partition=PartitionConfig("iid", clients=2, min_rows=3))
    assert partition(tmp_path / "raw", tmp_path / "made", made, 1) == ["client-000", "client-001"]


def test_a_month_is_a_file_and_a_new_month_a_new_file(tmp_path: Path) -> None:
    config = DataConfig(months=(1, 2), sites=("OO", "HA"))
    ingest(config, tmp_path / "raw")
    assert partition(tmp_path / "raw", tmp_path / "sites", config, 1) == ["OO", "HA"]
    assert sorted(content(tmp_path / "sites")) == [
        "HA/2013-01.parquet",
        "HA/2013-02.parquet",
        "OO/2013-01.parquet",
        "schema.json",
    ]
    before = content(tmp_path / "sites")
    more = DataConfig(months=(1, 2, 3), sites=("HA",))
    ingest(more, tmp_path / "raw")
    assert partition(tmp_path / "raw", tmp_path / "sites", more, 1) == ["HA"]
    after = content(tmp_path / "sites")
    assert set(after) == {f"HA/2013-0{month}.parquet" for month in (1, 2, 3)} | {"schema.json"}
    assert after["HA/2013-01.parquet"] == before["HA/2013-01.parquet"]


def test_a_file_a_client_is_taken_as_it_is(tmp_path: Path, rows: Rows, lay: Lay) -> None:
    lay(tmp_path / "clients" / "a.csv", rows(5))
    lay(tmp_path / "clients" / "b.csv", rows(5))
    (tmp_path / "clients" / "c.csv").write_bytes(b"broken,\x00")
    config = DataConfig(name="own", path=str(tmp_path / "clients"), label="sick")
    ingest(config, tmp_path / "raw")
    assert partition(tmp_path / "raw", tmp_path / "sites", config, 1) == ["a", "b", "c"]
    assert (tmp_path / "sites" / "c" / "rows.csv").read_bytes() == b"broken,\x00"
    assert write_site(tmp_path / "raw", "c", tmp_path / "alone", config, 1) == tmp_path / "alone" / "c"
    made = DataConfig(name="own", partition=PartitionConfig("iid"))
    with pytest.raises(BadInput, match=r"keeps one file a client; set data.partition.scheme to natural"):
        partition(tmp_path / "raw", tmp_path / "sites", made, 1)


def test_a_single_client_is_a_single_site(own: Own, tmp_path: Path) -> None:
    raw, config = own(hospitals=("x",))
    assert partition(raw, tmp_path / "sites", config, 1) == ["x"]


def test_only_folders_of_former_sites_are_taken_away(own: Own, tmp_path: Path) -> None:
    raw, config = own()
    precious = tmp_path / "sites" / "precious"
    precious.mkdir(parents=True)
    (precious / "thesis.txt").touch()
    partition(raw, tmp_path / "sites", config, 1)
    chosen = DataConfig(name="own", sites=("z",))
    partition(raw, tmp_path / "sites", chosen, 1)
    assert sorted(f.name for f in (tmp_path / "sites").iterdir()) == ["precious", "schema.json", "z"]


def test_an_unknown_site_is_refused_before_anything_is_written(own: Own, tmp_path: Path) -> None:
    raw, config = own(sites=("x", "q"))
    with pytest.raises(UnknownName, match="unknown site 'q'; known: x, y, z"):
        partition(raw, tmp_path / "sites", config, 1)
    with pytest.raises(UnknownName, match="unknown site 'client-009'"):
        write_site(raw, "client-009", tmp_path / "sites", config, 1)
    assert not (tmp_path / "sites").exists()


def test_a_client_that_cannot_name_a_folder_is_refused(own: Own, tmp_path: Path) -> None:
    raw, config = own(hospitals=("x", "../y"))
    with pytest.raises(BadInput, match=r"client '../y' of own cannot name a folder"):
        partition(raw, tmp_path / "sites", config, 1)


def test_a_set_without_clients_needs_a_partitioner(tmp_path: Path) -> None:
    config = DataConfig(name="digits")
    ingest(config, tmp_path / "raw")
    with pytest.raises(BadConfig, match="digits has no clients, use iid, dirichlet, labels, quantity"):
        sites(tmp_path / "raw", config, 1)


def test_a_minimum_that_cannot_be_met_writes_nothing(own: Own, tmp_path: Path) -> None:
    raw, config = own(partition=PartitionConfig("iid", clients=4))
    with pytest.raises(BadInput, match="min_rows 10 cannot be met by 4 clients of 30 rows"):
        partition(raw, tmp_path / "sites", config, 1)
    assert not (tmp_path / "sites").exists()


@pytest.mark.parametrize("file", ["raw.parquet", "raw.npz"])
def test_raw_data_that_are_gone_or_broken_are_named(file: str, schema: Schema, tmp_path: Path) -> None:
    with pytest.raises(CorruptState, match=r"cannot read .*schema.json"):
        partition(tmp_path, tmp_path / "sites", DataConfig(), 1)
    schema.save(tmp_path)
    with pytest.raises(CorruptState, match="holds no raw data; run the ingest stage"):
        partition(tmp_path, tmp_path / "sites", DataConfig(), 1)
    (tmp_path / file).write_bytes(b"torn")
    with pytest.raises(CorruptState, match="is not readable raw data"):
        partition(tmp_path, tmp_path / "sites", DataConfig(), 1)


def test_a_folder_that_cannot_be_written_is_named(own: Own, tmp_path: Path) -> None:
    raw, config = own()
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        partition(raw, tmp_path / "file", config, 1)
