"""Roles of plays and writers of digits, from tiny files of the published form."""

import gzip
import lzma
from pathlib import Path

import numpy as np
import pytest

from fedcore.config import DataConfig
from fedcore.data.catalog import ingest
from fedcore.data.features import merge
from fedcore.data.federated import load_site, train_statistics
from fedcore.data.partition import partition
from fedcore.data.schema import Schema
from fedcore.data.text import ALPHABET, STEP, WINDOW, tokens
from fedcore.errors import BadData

SPEECH = [f"To be, or not to be, that is the question {i}:" for i in range(10)]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDCORE_DATA", str(tmp_path))
    return tmp_path


def lay_plays(place: Path, *spoken: tuple[str, str]) -> None:
    (place / "shakespeare_roles").mkdir(exist_ok=True)
    lines = [f"Henry IV\t{role}\t1.1.{i}\t{text}\n" for i, (role, text) in enumerate(spoken)]
    (place / "shakespeare_roles" / "lines.tsv.xz").write_bytes(lzma.compress("".join(lines).encode()))


def test_windows_are_followed_by_their_label_and_keep_to_their_side(place: Path) -> None:
    lay_plays(place, *(("LADY PERCY", text) for text in SPEECH), ("BOY", "Ay."))
    schema = ingest(DataConfig(name="shakespeare"), place / "raw")
    with np.load(place / "raw" / "raw.npz") as raw:
        arrays = dict(raw)
    assert set(arrays["client"]) == {"Henry-IV.LADY-PERCY"}
    text = {"train": " ".join(SPEECH[:8]), "test": " ".join(SPEECH[8:])}
    for side, spoken in text.items():
        own = arrays["split"] == side
        starts = range(0, len(spoken) - WINDOW, STEP)
        assert "".join(arrays["next"][own]) == "".join(spoken[s + WINDOW] for s in starts)
        np.testing.assert_array_equal(arrays["x"][own], [tokens(spoken[s : s + WINDOW]) for s in starts])
    assert schema.tokens == len(schema.classes) == len(ALPHABET) == 74


def test_a_role_reaches_the_model_as_token_numbers_divided_as_published(place: Path) -> None:
    lay_plays(place, *(("HOTSPUR", text) for text in SPEECH), *(("PRINCE", text) for text in SPEECH))
    config = DataConfig(name="shakespeare")
    ingest(config, place / "raw")
    names = partition(place / "raw", place / "sites", config, 1)
    assert names == ["Henry-IV.HOTSPUR", "Henry-IV.PRINCE"]
    schema = Schema.load(place / "sites")
    assert schema.tokens == 74
    features = merge(
        [train_statistics(place / "sites" / name, schema, 1, name, 0.2) for name in names], schema
    )
    assert features.tokens == 74
    site = load_site(place / "sites" / names[0], schema, features, 1, names[0], 0.2)
    assert "".join(ALPHABET[int(t)] for t in site.x_train[0]) == " ".join(SPEECH)[:WINDOW]
    assert ALPHABET[int(site.y_test[0])] == " ".join(SPEECH[8:])[WINDOW]


def test_a_character_or_a_file_that_is_not_the_published_one_is_refused(place: Path) -> None:
    lay_plays(place, ("BOY", "é" * 100))
    with pytest.raises(BadData, match=r"Henry-IV.BOY says 'é', which is not in the alphabet"):
        ingest(DataConfig(name="shakespeare"), place / "raw")
    (place / "shakespeare_roles" / "lines.tsv.xz").write_bytes(b"no archive")
    with pytest.raises(BadData, match=r"lines.tsv.xz cannot be read"):
        ingest(DataConfig(name="shakespeare"), place / "raw")


@pytest.mark.parametrize("odd", [-1, 74, 0.5])
def test_a_shard_whose_numbers_are_no_tokens_is_refused(place: Path, odd: float) -> None:
    lay_plays(place, *(("HOTSPUR", text) for text in SPEECH))
    config = DataConfig(name="shakespeare")
    ingest(config, place / "raw")
    (name,) = partition(place / "raw", place / "sites", config, 1)
    file = place / "sites" / name / "rows.npz"
    with np.load(file) as arrays:
        broken = dict(arrays)
    broken["x"] = broken["x"].astype(np.float32)
    broken["x"][1, 2] = odd
    np.savez(file, **broken)
    with pytest.raises(BadData, match=f"x holds {odd}, and tokens are whole numbers from 0 to 73"):
        train_statistics(place / "sites" / name, Schema.load(place / "sites"), 1, name, 0.2)


def lay_digits(place: Path, writers: int) -> None:
    folder = place / "mnist_by_writer"
    folder.mkdir(exist_ok=True)
    pictures = np.arange(6 * 784, dtype=np.uint32).astype(np.uint8)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(16) + pictures.tobytes()))
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(8) + bytes(range(6))))
    np.savez(folder / "writers.npz", train_writer=np.arange(writers) // 3 + 40)


def test_digits_are_by_writer(place: Path) -> None:
    lay_digits(place, 6)
    schema = ingest(DataConfig(name="mnist-by-writer"), place / "raw")
    with np.load(place / "raw" / "raw.npz") as raw:
        assert raw["client"].tolist() == ["writer-0040"] * 3 + ["writer-0041"] * 3
        assert raw["y"].tolist() == list(range(6))
        assert raw["x"].shape == (6, *schema.shape)
        assert raw["x"].ravel()[:4].tolist() == [0, 1, 2, 3]


def test_digits_without_a_writer_each_are_refused(place: Path) -> None:
    lay_digits(place, 5)
    with pytest.raises(BadData, match=r"published files \(6 pictures, 6 labels, 5 writers\)"):
        ingest(DataConfig(name="mnist-by-writer"), place / "raw")


@pytest.mark.parametrize("name", ["shakespeare", "mnist-by-writer"])
def test_a_set_that_is_not_here_says_how_to_get_it(place: Path, name: str) -> None:
    with pytest.raises(BadData, match="it is not on this machine"):
        ingest(DataConfig(name=name), place / "raw")


def test_damaged_files_of_digits_are_refused(place: Path) -> None:
    lay_digits(place, 6)
    for name in ("train-images-idx3-ubyte.gz", "writers.npz"):
        file = place / "mnist_by_writer" / name
        whole = file.read_bytes()
        middle = len(whole) // 2
        for content in (
            whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :],
            whole[:-10],
            b"",
        ):
            file.write_bytes(content)
            with pytest.raises(BadData, match="does not hold the published files"):
                ingest(DataConfig("mnist-by-writer"), place / "raw")
        file.write_bytes(whole)
