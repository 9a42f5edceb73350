"""CIFAR-10: 60,000 colour pictures of 32 x 32 in 10 classes, without natural clients (Krizhevsky 2009).

Read from lossless WebP mosaics, one a class and side, a hundred pictures a line. Pictures are in order
of side, class and file name, which is not that of the published batches: indices into those do not apply.
"""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedcore.config import DataConfig
from fedcore.data.places import find_folder
from fedcore.data.raw import Raw
from fedcore.data.schema import Schema
from fedcore.data.shards import TEST, TRAIN
from fedcore.errors import BadData, MissingExtra

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SHAPE = (3, 32, 32)
# of a side's bytes (n, 32, 32, 3) once decoded: what they were packed in does not matter
SHA256 = {
    TRAIN: "61bea91e73ac2b02dfb856e685981dce64abe13d4e780aa98a1ac1e7c056d03b",
    TEST: "52a9dc125982c0440d5eed87474b2f521e96c45a98df08e4329aa42c692b9d9d",
}
_ACROSS = 100  # pictures in a line of a mosaic
_Bytes = NDArray[np.uint8]


def load(config: DataConfig) -> Raw:
    """50,000 pictures of the published training set, then 10,000 of its test; (channels, height, width) bytes."""
    folder = find_folder(
        "cifar10",
        _file(TRAIN, 0),
        f"put the 20 mosaics {_file(TRAIN, 0)} to {_file(TEST, 9)} into a folder cifar10 there",
    )
    sides = {side: _pictures(folder, side) for side in SHA256}
    x = np.concatenate([pictures.transpose(0, 3, 1, 2) for pictures, _ in sides.values()])
    y = np.concatenate([labels for _, labels in sides.values()])
    divided = config.published_split
    schema = Schema("cifar10", "classification", "y", CLASSES, shape=SHAPE, split="split" if divided else "")
    said = {"split": np.repeat(list(sides), [len(part) for _, part in sides.values()])} if divided else {}
    return Raw(schema, arrays={"x": x, "y": y, **said})


def _file(side: str, number: int) -> str:
    return f"{side}_{number}_{CLASSES[number]}.webp"


def _pictures(folder: Path, side: str) -> tuple[_Bytes, NDArray[np.str_]]:
    """Pictures (n, 32, 32, 3) and classes (n,) of one side. Raises `BadData` unless they are the published ones."""
    parts = [_mosaic(folder / _file(side, number)) for number in range(len(CLASSES))]
    pictures = np.concatenate(parts)
    if hashlib.sha256(pictures.tobytes()).hexdigest() != SHA256[side]:
        raise BadData(
            "cifar10",
            f"the {side} pictures in {folder} are not the published ones (SHA-256)",
            "copy them again",
        )
    return pictures, np.repeat(CLASSES, [len(part) for part in parts])


def _mosaic(file: Path) -> _Bytes:
    """The pictures (n, 32, 32, 3) of one file, line by line."""
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtra("Pillow", "data") from None
    try:
        with Image.open(file) as mosaic:
            wide = np.asarray(mosaic.convert("RGB"))
        tiles = wide.reshape(-1, 32, _ACROSS, 32, 3)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise BadData("cifar10", f"cannot read {file} ({error})", "copy it again") from None
    return tiles.swapaxes(1, 2).reshape(-1, 32, 32, 3)
