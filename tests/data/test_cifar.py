"""CIFAR-10 from tiny mosaics of the published form, and from the published ones where they are here."""

import hashlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedcore.adapters.model import ModelSpec, Training, build_model
from fedcore.config import DataConfig, PartitionConfig
from fedcore.data import cifar
from fedcore.data.catalog import ingest
from fedcore.data.partition import partition
from fedcore.data.schema import Schema
from fedcore.errors import BadData, MissingExtra
from fedcore.rng import generator

LINES = {"train": 2, "test": 1}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Mosaics of the published form: a hundred pictures a line, two lines a class to train on and one to test."""
    folder = tmp_path / "cifar10"
    folder.mkdir()
    draws, digests = generator(1, "pictures"), {}
    for side, lines in LINES.items():
        pictures = draws.integers(0, 255, (10, lines, 100, 2, 2, 3), dtype=np.uint8)
        pictures = pictures.repeat(16, axis=3).repeat(16, axis=4)  # four plain squares
        for number, name in enumerate(cifar.CLASSES):
            wide = pictures[number].swapaxes(1, 2).reshape(32 * lines, 3200, 3)
            Image.fromarray(wide).save(folder / f"{side}_{number}_{name}.webp", lossless=True, method=0)
        digests[side] = hashlib.sha256(pictures.tobytes()).hexdigest()
        np.save(tmp_path / f"{side}.npy", pictures.reshape(-1, 32, 32, 3))
    monkeypatch.setattr(cifar, "SHA256", digests)
    monkeypatch.setenv("FEDCORE_DATA", str(tmp_path))
    return tmp_path


def test_mosaics_are_cut_into_pictures_with_their_channels_first(place: Path) -> None:
    schema = ingest(DataConfig("cifar10"), place / "raw")
    assert (schema.shape, schema.split) == ((3, 32, 32), "")
    with np.load(place / "raw" / "raw.npz") as raw:
        assert set(raw) == {"x", "y"}
        given = np.concatenate([np.load(place / f"{side}.npy") for side in LINES])
        np.testing.assert_array_equal(raw["x"], given.transpose(0, 3, 1, 2))
        assert raw["y"].tolist() == [
            name for lines in LINES.values() for name in cifar.CLASSES for _ in range(100 * lines)
        ]


def test_the_published_division_is_kept_in_every_partition(place: Path) -> None:
    config = DataConfig("cifar10", published_split=True, partition=PartitionConfig("iid", clients=2))
    ingest(config, place / "raw")
    assert partition(place / "raw", place / "sites", config, 1) == ["client-000", "client-001"]
    trained = {picture.tobytes() for picture in np.load(place / "train.npy").transpose(0, 3, 1, 2)}
    for site in ("client-000", "client-001"):
        with np.load(place / "sites" / site / "rows.npz") as rows:
            known = np.array([picture.tobytes() in trained for picture in rows["x"]])
            assert ((rows["split"] == "train") == known).all()
            assert 0 < known.sum() < len(known)
    assert Schema.load(place / "sites").split == "split"


@pytest.mark.parametrize("name", ["lenet", "dwcnn"])
def test_the_networks_for_pictures_train_on_them(place: Path, name: str) -> None:
    schema = ingest(DataConfig("cifar10"), place / "raw")
    spec = ModelSpec("torch", name, (), None, schema.shape, len(schema.classes), "classification")
    model = build_model(spec)
    with np.load(place / "raw" / "raw.npz") as raw:
        x = raw["x"][::100].astype(np.float32) / np.float32(255)
        y = np.searchsorted(schema.classes, raw["y"][::100]).astype(np.float32)
    start = model.init(generator(1, "init"))
    trained, _ = model.train(start, x, y, Training(0.05, 0.0, 0.0, 20, 10), generator(2, "train"))
    assert model.loss_and_gradient(trained, x, y)[0] < model.loss_and_gradient(start, x, y)[0]
    assert model.scores(trained, x).shape == (30, 10)


def test_other_pictures_and_files_that_cannot_be_read_are_refused(place: Path) -> None:
    cat = place / "cifar10" / "test_3_cat.webp"
    cat.write_bytes((place / "cifar10" / "test_5_dog.webp").read_bytes())
    with pytest.raises(
        BadData, match=r"the test pictures in .*cifar10 are not the published ones \(SHA-256\); copy them"
    ):
        ingest(DataConfig("cifar10"), place / "raw")
    Image.new("RGB", (3200, 33)).save(cat, lossless=True)
    for content in (None, cat.read_bytes(), b"no picture", cat.read_bytes()[:60]):
        cat.unlink()
        if content is not None:
            cat.write_bytes(content)
        with pytest.raises(BadData, match=r"cannot read .*test_3_cat.webp \(.*\); copy it again"):
            ingest(DataConfig("cifar10"), place / "raw")
        cat.touch()


def test_a_set_that_is_nowhere_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDCORE_DATA", str(tmp_path))
    with pytest.raises(
        BadData, match=r"not on this machine.*put the 20 mosaics train_0_airplane.webp to test_9"
    ):
        ingest(DataConfig("cifar10"), tmp_path / "raw")


def test_without_pillow_its_extra_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtra, match=r"Pillow is not installed.*fedcore-mlops\[data\]"):
        ingest(DataConfig("cifar10"), place / "raw")


@pytest.mark.skipif("FEDCORE_DATA" not in os.environ, reason="the pictures are not here")
def test_the_published_pictures_come_out(tmp_path: Path) -> None:
    """Their digests are checked where they are read; their means are those that everybody knows."""
    ingest(DataConfig("cifar10", published_split=True), tmp_path / "raw")
    with np.load(tmp_path / "raw" / "raw.npz") as raw:
        x, y, train = raw["x"], raw["y"], raw["split"] == "train"
    assert x.shape == (60_000, 3, 32, 32)
    assert (train.sum(), (~train).sum()) == (50_000, 10_000)
    assert {name: int((y[~train] == name).sum()) for name in cifar.CLASSES} == dict.fromkeys(
        cifar.CLASSES, 1000
    )
    published = [125.30691805, 122.95039414, 113.86538318]
    np.testing.assert_allclose(x[train].mean(axis=(0, 2, 3), dtype=np.float64), published, atol=1e-8)
