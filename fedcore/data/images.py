"""Two sets of small pictures without natural clients: handwritten digits and Fashion-MNIST."""

import gzip
import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.config import DataConfig
from fedcore.data.places import find_folder
from fedcore.data.raw import Raw
from fedcore.data.schema import Schema
from fedcore.data.shards import TEST, TRAIN
from fedcore.errors import BadData, MissingExtra

TEN = tuple("0123456789")
SYSTEM_FASHION = Path("/usr/share/datasets/fashion-mnist")
FASHION_SHA256 = {
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}


def load_digits(config: DataConfig) -> Raw:
    """1,797 digits of 8 x 8 shares of full ink, from scikit-learn's file (without importing scikit-learn)."""
    spec = find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise MissingExtra("scikit-learn", "data")
    file = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    cells = np.loadtxt(file, delimiter=",", dtype=np.float32)
    x, y = cells[:, :-1].reshape(-1, 8, 8) / np.float32(16), cells[:, -1].astype(np.int64)
    return Raw(Schema("digits", "classification", "y", TEN, shape=(8, 8)), arrays={"x": x, "y": y})


def load_fashion(config: DataConfig) -> Raw:
    """70,000 pieces of clothing of 28 x 28 bytes; the first 60,000 are the published training set."""
    folder = find_folder(
        "fashion_mnist",
        next(iter(FASHION_SHA256)),
        "install Debian's package dataset-fashion-mnist or put its four files into a folder fashion_mnist there",
        SYSTEM_FASHION,
    )
    images = [_idx(folder / name, 16) for name in FASHION_SHA256 if "images" in name]
    labels = [_idx(folder / name, 8) for name in FASHION_SHA256 if "labels" in name]
    x, y = np.concatenate(images).reshape(-1, 28, 28), np.concatenate(labels)
    divided = config.published_split
    schema = Schema(
        "fashion-mnist", "classification", "y", TEN, shape=(28, 28), split="split" if divided else ""
    )
    sides = {"split": np.repeat([TRAIN, TEST], [len(part) // 784 for part in images])} if divided else {}
    return Raw(schema, arrays={"x": x, "y": y, **sides})


def _idx(file: Path, header: int) -> NDArray[Any]:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BadData("fashion-mnist", f"cannot read {file}: {error.strerror}", "install it again") from None
    if hashlib.sha256(content).hexdigest() != FASHION_SHA256[file.name]:
        raise BadData("fashion-mnist", f"{file} is not the published file (SHA-256)", "install it again")
    return np.frombuffer(gzip.decompress(content), np.uint8, offset=header)
