"""A site's own data, read at the site: shards of one folder -> columns, labels, training and test rows.

This is on the hot path of every worker, so parquet and CSV are read with pyarrow alone. What a
file must hold is in `Schema`; whatever does not fit raises `BadData` naming site, file, column
and value. Reading cells is in `shards.py`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.data.features import Columns, Features, SiteStatistics, describe
from fedcore.data.schema import Schema
from fedcore.data.shards import TEST, TRAIN, labels_of, read_shard, shard_files
from fedcore.data.statistics import as_words
from fedcore.errors import BadData
from fedcore.rng import generator


@dataclass(frozen=True)
class SiteData:
    """One site's encoded rows: x (n, *input_shape), y (n,) the class number or the value in its own unit."""

    x_train: NDArray[np.float32]
    y_train: NDArray[np.float32]
    x_test: NDArray[np.float32]
    y_test: NDArray[np.float32]


def read_columns(folder: Path, schema: Schema) -> tuple[Columns, NDArray[Any]]:
    """Raw columns and labels (text of the class, or float64) of all shards of one site's folder, in order of file name.

    Missing is NaN or the empty word; an array of bytes becomes shares of 255. Raises `BadData`.
    """
    shards = [read_shard(file, schema) for file in shard_files(folder)]
    labels = [labels_of(shard, schema) for shard in shards]
    columns = {name: np.concatenate([s.columns[name] for s in shards]) for name in shards[0].columns}
    return columns, np.concatenate(labels)


def split(n: int, seed: int, site: str, test_fraction: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Numbers of the training and of the test rows among `n`, about `test_fraction` of them for the test.

    A row keeps its side when later rows are added (a new month is a new file at the end), so a
    test row of an old model is never trained on later. From two rows on neither side is empty.
    """
    draws = generator(seed, "split", site).random(n)
    test = draws < test_fraction
    if n > 1 and not test.any():
        test[np.argmin(draws)] = True
    if test.all() and n:
        test[np.argmax(draws)] = False
    return np.flatnonzero(~test), np.flatnonzero(test)


def sides(
    columns: Columns, schema: Schema, seed: int, site: str, test_fraction: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Numbers of the training and of the test rows: as the set says where it brings its division, else drawn by `split`.

    Raises `BadData` for a site to which the set's division leaves no training row.
    """
    if not schema.split:
        return split(len(columns[schema.columns[0]]), seed, site, test_fraction)
    said = columns[schema.split]
    if not (said == TRAIN).any():
        raise BadData(
            site, "none of its rows is for training in the published division", "leave the site out"
        )
    return np.flatnonzero(said == TRAIN), np.flatnonzero(said == TEST)


def train_statistics(
    folder: Path, schema: Schema, seed: int, site: str, test_fraction: float
) -> SiteStatistics:
    """Statistics of the site's training rows: see `describe`. Raises `BadData`."""
    columns, labels = read_columns(folder, schema)
    train, _ = sides(columns, schema, seed, site, test_fraction)
    return describe({name: column[train] for name, column in columns.items()}, schema, labels[train])


def train_rows(folder: Path, schema: Schema, seed: int, site: str, test_fraction: float) -> int:
    """How many training rows the site has. Raises `BadData`."""
    columns, _ = read_columns(folder, schema)
    return len(sides(columns, schema, seed, site, test_fraction)[0])


def load_site(
    folder: Path, schema: Schema, features: Features, seed: int, site: str, test_fraction: float
) -> SiteData:
    """The site's rows, encoded and divided as `sides` says. Raises `BadData`."""
    columns, labels = read_columns(folder, schema)
    x, y = features.encode(columns), targets(labels, schema, site)
    train, test = sides(columns, schema, seed, site, test_fraction)
    return SiteData(x[train], y[train], x[test], y[test])


def targets(labels: NDArray[Any], schema: Schema, where: str) -> NDArray[np.float32]:
    """What the model learns (n,): the class's number in `schema.classes`, or the value. Raises `BadData`."""
    if schema.task != "classification":
        return labels.astype(np.float32)
    order = np.argsort(np.array(schema.classes))
    known = np.array(schema.classes)[order]
    words = as_words(labels)
    place = np.minimum(np.searchsorted(known, words), len(known) - 1)
    wrong = np.flatnonzero(known[place] != words)
    if len(wrong):
        allowed = ", ".join(schema.classes)
        raise BadData(where, f"label {schema.label!r} holds {str(words[wrong[0]])!r}, allowed: {allowed}")
    return order[place].astype(np.float32)
