"""Exam scores of 15,362 pupils of 139 London schools (ILEA, 1985 to 1987), as `private-cross-silo-fl` prepares them.

28 columns: year, gender, ability band and ethnic group of the pupil, gender and denomination of the
school as zeros and ones, two percentages of the school, and a constant. The score, 1 to 70, becomes
a share from 0 to 1. Liu, Hu, Wu, Smith 2022, arXiv:2206.07902.
"""

import hashlib
import io

import numpy as np
from numpy.typing import NDArray

from fedcore.config import DataConfig
from fedcore.data.places import find_folder
from fedcore.data.raw import CLIENT, Raw
from fedcore.data.schema import Schema
from fedcore.errors import BadData, MissingExtra

SHA256 = "57fb3238fdd03a9aa17276e2ce18d9bbb5d128c3261e794fe6233b58b6909068"
SCHEMA = Schema("school", "regression", "score", shape=(28,))
_PERCENT = slice(3, 5)  # of pupils eligible for free meals, and in the highest band
_Numbers = NDArray[np.float32]


def load(config: DataConfig) -> Raw:
    """All pupils, each column scaled school by school to mean 0 and deviation 1, as the published results are.

    A pupil's row then depends on the school's others: a record-level guarantee takes that scaling
    as given. `load_shares` needs no statistics.
    """
    return _raw("school", [(_standardized(x), y) for x, y in _schools()])


def load_shares(config: DataConfig) -> Raw:
    """All pupils, percentages as shares and all else as published: nothing of one pupil is in another's row."""
    return _raw("school-shares", _schools())


def _raw(name: str, schools: list[tuple[_Numbers, _Numbers]]) -> Raw:
    clients = np.repeat([f"school-{i:03d}" for i in range(len(schools))], [len(y) for _, y in schools])
    x, y = (np.concatenate(parts) for parts in zip(*schools, strict=True))
    schema = Schema(name, SCHEMA.task, SCHEMA.label, shape=SCHEMA.shape)
    return Raw(schema, arrays={"x": x, "score": y, CLIENT: clients})


def _schools() -> list[tuple[_Numbers, _Numbers]]:
    """Columns (pupils, 28) with percentages as shares, and scores (pupils,) from 0 to 1, of each school."""
    folder = find_folder(
        "school", "school.mat", "put school.mat of MALSAR or private-cross-silo-fl into a folder school there"
    )
    try:
        content = (folder / "school.mat").read_bytes()
    except OSError as error:
        raise BadData(
            "school", f"cannot read {folder / 'school.mat'}: {error.strerror}", "copy it again"
        ) from None
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise BadData(
            "school", f"{folder / 'school.mat'} is not the published file (SHA-256)", "copy it again"
        )
    try:
        from scipy.io import loadmat
    except ImportError:
        raise MissingExtra("scikit-learn", "data") from None
    tables = loadmat(io.BytesIO(content))
    return [_school(x, y) for x, y in zip(tables["X"][0], tables["Y"][0], strict=True)]


def _school(x: NDArray[np.uint8], y: NDArray[np.uint8]) -> tuple[_Numbers, _Numbers]:
    columns = x.astype(np.float32)
    columns[:, _PERCENT] /= 100
    return columns, (y.ravel().astype(np.float32) - 1) / np.float32(69)


def _standardized(x: _Numbers) -> _Numbers:
    wide = x.astype(np.float64)
    deviation = wide.std(axis=0)
    scaled: _Numbers = ((wide - wide.mean(axis=0)) / np.where(deviation > 1e-9, deviation, 1.0)).astype(
        np.float32
    )
    return scaled
