"""Patients of six regions, laid down as FLamby divides them, with days of one sign or the other."""

import os
from pathlib import Path

import numpy as np
import pytest

from fedcore.config import DataConfig
from fedcore.data.brca import FEATURES
from fedcore.data.catalog import ingest
from fedcore.data.federated import targets
from fedcore.errors import BadData
from fedcore.tables import named
from fedcore.tables.table import Cell
from fedcore.tables.training import train


def patients(place: Path, events: str = "1.0") -> None:
    """Eight patients a region, five to train on; one without a place."""
    folder = place / "fed_tcga_brca"
    folder.mkdir()
    names = ["pid", *(f"f{i}" for i in range(FEATURES)), "E", "T"]
    rows, sides = [",".join(names)], ["pid,fold,fold2"]
    draws = np.random.default_rng(0)
    for region in range(6):
        for i in range(8):
            pid, event = f"P{region}{i}", events if i % 2 else "0.0"
            x = draws.integers(0, 2, FEATURES)
            rows.append(",".join([pid, *map(str, x), event, f"{10 * i}.0"]))
            sides.append(f"{pid},x,{'test' if i > 4 else 'train'}_{region}")
    rows.append(",".join(["nobody", *["0"] * FEATURES, "0.0", "5.0"]))
    (folder / "brca.csv").write_text("\n".join(rows) + "\n")
    (folder / "train_test_split.csv").write_text("\n".join(sides) + "\n")


def test_a_death_is_a_time_and_a_last_sight_minus_one(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDCORE_DATA", str(tmp_path))
    patients(tmp_path)
    schema = ingest(DataConfig("brca"), tmp_path / "raw")
    with np.load(tmp_path / "raw" / "raw.npz") as raw:
        assert raw["days"][:4].tolist() == [-1, 11, -21, 31]
        assert sorted(set(raw["client"])) == [f"region-{k}" for k in range(6)]
        assert (raw["split"] == "train").sum() == 30
        y = targets(raw["days"], schema, "here")
    assert (y.dtype, schema.task) == (np.float32, "survival")
    ingest(DataConfig("brca-pooled"), tmp_path / "raw")
    with np.load(tmp_path / "raw" / "raw.npz") as raw:
        assert set(raw["client"]) == {"pooled"}


@pytest.mark.parametrize(
    ("file", "old", "new", "why"),
    [
        ("brca.csv", "f7,", "", "38 columns beside pid, E and T"),
        ("train_test_split.csv", "train_3", "train_9", "a division 'train_9'"),
        ("train_test_split.csv", "\nP", "\nQ", "divides none of its patients"),
    ],
)
def test_other_files_than_the_published_are_refused(tmp_path, monkeypatch, file, old, new, why):
    monkeypatch.setenv("FEDCORE_DATA", str(tmp_path))
    patients(tmp_path)
    path = tmp_path / "fed_tcga_brca" / file
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(BadData, match=why):
        ingest(DataConfig("brca"), tmp_path / "raw")


def test_a_cell_of_the_table_is_trained_and_judged_by_concordance(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDCORE_DATA", str(tmp_path))
    patients(tmp_path)
    table = named("brca")
    trained = train(table, Cell(table.rows[0], table.columns[0], 1, 1), tmp_path / "runs")
    assert sorted(trained.parts) == [f"region-{k}" for k in range(6)]
    assert 0 <= trained.score <= 1
    local = next(row for row in table.rows if row.name == "Local 2")
    assert len(train(table, Cell(local, table.columns[0], 1, 3), tmp_path / "runs").parts) == 6


@pytest.mark.skipif("FEDCORE_DATA" not in os.environ, reason="the patients' files are not here")
def test_the_published_counts_of_flambys_regions_come_out(tmp_path):
    ingest(DataConfig("brca"), tmp_path)
    published = [(248, 63), (156, 40), (164, 42), (129, 33), (129, 33), (40, 11)]
    with np.load(tmp_path / "raw.npz") as raw:
        own = [raw["split"][raw["client"] == f"region-{k}"] for k in range(6)]
    assert [((side == "train").sum(), (side == "test").sum()) for side in own] == published
