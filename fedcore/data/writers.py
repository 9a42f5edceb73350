"""MNIST by the person who wrote: 539 clients, the writers of the 60,000 training digits.

LeCun et al. 1998; the writers' numbers are those of QMNIST, Yadav and Bottou 2019, arXiv:1905.10498.
The writers of the 10,000 test digits are others, so these are left out, and each writer's own digits are divided.
"""

import gzip
import zipfile
import zlib

import numpy as np

from fedcore.config import DataConfig
from fedcore.data.images import TEN
from fedcore.data.places import find_folder
from fedcore.data.raw import CLIENT, Raw
from fedcore.data.schema import Schema
from fedcore.errors import BadData

FILES = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "writers.npz")


def load(config: DataConfig) -> Raw:
    """The training digits of 28 x 28 bytes, by ``writer-NNNN``."""
    folder = find_folder(
        "mnist_by_writer", FILES[2], f"put {', '.join(FILES)} into a folder mnist_by_writer there"
    )
    try:
        pictures, labels = (gzip.decompress((folder / name).read_bytes()) for name in FILES[:2])
        x = np.frombuffer(pictures, np.uint8, offset=16).reshape(-1, 28, 28)
        y = np.frombuffer(labels, np.uint8, offset=8)
        with (folder / FILES[2]).open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            writers = arrays["train_writer"]
        if not len(x) == len(y) == len(writers):
            raise ValueError(f"{len(x)} pictures, {len(y)} labels, {len(writers)} writers")
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise BadData(
            "mnist-by-writer", f"{folder} does not hold the published files ({error})", "copy them again"
        ) from None
    clients = np.array([f"writer-{writer:04d}" for writer in writers])
    schema = Schema("mnist-by-writer", "classification", "y", TEN, shape=(28, 28))
    return Raw(schema, arrays={"x": x, "y": y, CLIENT: clients})
