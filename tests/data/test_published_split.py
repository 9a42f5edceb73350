"""A set that brings its own division into training and test rows is divided by nothing else."""

import os
from pathlib import Path

import numpy as np
import pytest

from fedcore.config import DataConfig, PartitionConfig, config_from
from fedcore.data import heart, images
from fedcore.data.catalog import ingest
from fedcore.data.features import merge
from fedcore.data.federated import load_site, sides, train_statistics
from fedcore.data.partition import partition
from fedcore.data.raw import write_npz
from fedcore.data.schema import Schema
from fedcore.edge.holdout import held_out
from fedcore.errors import BadConfig, BadData, BadInput
from fedcore.redteam.membership import train_shadows

SCHEMA = Schema("divided", "classification", "y", ("0", "1"), shape=(2,), split="side")
PATIENT = "{age},1,{cp},145,0,1,{ecg},150,0,2.3,?,0,6,{num}\n"


def lay(place: Path, side: list[str]) -> Path:
    place.mkdir(parents=True)
    x = np.arange(2 * len(side), dtype=np.float32).reshape(-1, 2)
    write_npz({"x": x, "y": np.arange(len(side)) % 2, "side": np.array(side)}, place / "rows.npz")
    return place


def test_rows_are_where_the_set_says_whatever_seed_and_fraction(tmp_path):
    said = ["train", "test", "test", "train", "train"]
    folder = lay(tmp_path / "a", said)
    features = merge([train_statistics(folder, SCHEMA, 1, "a", 0.2)], SCHEMA, False)
    for seed, fraction in ((1, 0.2), (9, 0.9)):
        data = load_site(folder, SCHEMA, features, seed, "a", fraction)
        assert data.x_train[:, 0].tolist() == [0, 6, 8]
        assert data.x_test[:, 0].tolist() == [2, 4]
    statistics = train_statistics(folder, SCHEMA, 1, "a", 0.2)
    assert (statistics.rows, statistics.numeric["x"].mean) == (3, ((0 + 6 + 8) / 3, (1 + 7 + 9) / 3))


def test_what_an_export_is_compared_on_are_the_same_test_rows(tmp_path):
    lay(tmp_path / "a", ["train", "test"])
    lay(tmp_path / "b", ["test", "train"])
    assert held_out(tmp_path, SCHEMA, 1, 0.5)["x"].tolist() == [[2, 3], [0, 1]]


def test_a_side_that_is_neither_and_a_site_without_training_rows_are_refused(tmp_path):
    folder = lay(tmp_path / "a", ["train", "valid"])
    with pytest.raises(BadData, match=r"'side' holds 'valid' in row 1, allowed: train, test"):
        train_statistics(folder, SCHEMA, 1, "a", 0.2)
    folder = lay(tmp_path / "b", ["test", "test"])
    with pytest.raises(BadData, match=r"b.*none of its rows is for training"):
        train_statistics(folder, SCHEMA, 1, "b", 0.2)


def test_a_schema_without_a_division_keeps_its_bytes_and_one_with_it_comes_back():
    assert Schema.from_json(SCHEMA.to_json()) == SCHEMA
    drawn = Schema("drawn", "regression", "y", shape=(2,))
    assert '"split"' not in drawn.to_json()
    assert Schema.from_json(drawn.to_json()) == drawn


def test_fashion_that_is_published_divided_keeps_the_division_in_every_partition(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "find_folder", lambda *_: tmp_path)
    monkeypatch.setattr(images, "_idx", lambda file, header: small(file.name))
    split = PartitionConfig("iid", clients=2)
    config = DataConfig("fashion-mnist", published_split=True, partition=split)
    ingest(config, tmp_path / "raw")
    partition(tmp_path / "raw", tmp_path / "sites", config, 1)
    with np.load(tmp_path / "sites" / "client-000" / "rows.npz") as rows:
        assert ((rows["x"][:, 0, 0] == 7) == (rows["split"] == "test")).all()
        assert set(rows["split"]) == {"train", "test"}
    assert "split" not in Schema.load(tmp_path / "raw").columns
    assert ingest(DataConfig("fashion-mnist"), tmp_path / "raw").split == ""


def small(name: str) -> np.ndarray:
    """40 pictures of ones to train on, 20 of sevens to test."""
    rows, value = (40, 1) if name.startswith("train") else (20, 7)
    return np.full(rows * 784, value, np.uint8) if "images" in name else np.arange(rows, dtype=np.uint8) % 10


def test_a_set_that_was_published_undivided_says_so(tmp_path):
    with pytest.raises(
        BadConfig, match=r"data.published_split.*digits was published undivided; leave it out"
    ):
        ingest(DataConfig("digits", published_split=True), tmp_path)


def hospitals(place: Path) -> None:
    """Four patients a hospital, the last for the test; one hospital measured nobody's second number differently."""
    (place / "fed_heart_disease").mkdir()
    sides = ["center,row,split"]
    for at, hospital in enumerate(heart.HOSPITALS):
        ages = (40 + at, 50, 60 + at, 70)
        lines = [PATIENT.format(age=age, cp=i + 1, ecg=i % 3, num=i % 2) for i, age in enumerate(ages)]
        (place / "fed_heart_disease" / f"processed.{hospital}.data").write_text("".join(lines))
        sides += [f"{hospital},{row},{'test' if row == 3 else 'train'}" for row in range(4)]
    (place / "fed_heart_disease" / "flamby_split.csv").write_text("\n".join(sides) + "\n")


def test_flambys_patients_are_scaled_by_their_own_hospitals_training_patients(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDCORE_DATA", str(tmp_path))
    hospitals(tmp_path)
    schema = ingest(DataConfig("heart-flamby"), tmp_path / "raw")
    with np.load(tmp_path / "raw" / "raw.npz") as raw:
        x, own, train = raw["x"], raw["client"], raw["split"] == "train"
    assert (schema.shape, schema.split, x.shape) == ((13,), "split", (16, 13))
    for hospital in heart.HOSPITALS:
        part = x[(own == hospital) & train]
        np.testing.assert_allclose(part.mean(axis=0), 0, atol=1e-6)
        np.testing.assert_allclose(part[:, 0].std(ddof=1), 1, rtol=1e-6)
        assert not part[:, 1].any()  # nobody differs in it
    np.testing.assert_allclose(x[3, 0], (70 - 50) / 10)  # cleveland: 40, 50, 60
    assert x[1, 8] > 0 > x[0, 8]  # chest pain 2 is its own column, and 1 has none


def test_flambys_pool_is_one_client_scaled_together(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDCORE_DATA", str(tmp_path))
    hospitals(tmp_path)
    ingest(DataConfig("heart-flamby-pooled"), tmp_path / "raw")
    with np.load(tmp_path / "raw" / "raw.npz") as raw:
        assert set(raw["client"]) == {"pooled"}
        np.testing.assert_allclose(raw["x"][raw["split"] == "train"].mean(axis=0), 0, atol=1e-6)
    (tmp_path / "fed_heart_disease" / "flamby_split.csv").unlink()
    with pytest.raises(BadData, match=r"there is no .*flamby_split.csv"):
        ingest(DataConfig("heart-flamby"), tmp_path / "raw")


@pytest.mark.skipif("FEDCORE_DATA" not in os.environ, reason="the hospitals' files are not here")
def test_the_published_counts_of_flambys_hospitals_come_out(tmp_path):
    config = DataConfig("heart-flamby")
    schema = ingest(config, tmp_path / "raw")
    partition(tmp_path / "raw", tmp_path / "sites", config, 1)
    published = {"cleveland": (199, 104), "hungarian": (172, 89), "switzerland": (30, 16), "va": (85, 45)}
    found = {}
    for hospital in heart.HOSPITALS:
        with np.load(tmp_path / "sites" / hospital / "rows.npz") as rows:
            train, test = sides({"split": rows["split"]}, schema, 1, hospital, 0.2)
            found[hospital] = (len(train), len(test))
    assert found == published


def test_membership_needs_a_division_that_can_be_drawn_again(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDCORE_DATA", str(tmp_path))
    hospitals(tmp_path)
    tree = {"data": {"name": "heart-flamby"}, "checks": {"min_rows": 1}, "run": {"rounds": 1}}
    tree |= {"model": {"framework": "numpy", "name": "logistic"}, "tracking": {"enabled": False}}
    with pytest.raises(BadInput, match=r"heart-flamby brings its own division"):
        train_shadows(config_from(tree), tmp_path / "runs", 8)
