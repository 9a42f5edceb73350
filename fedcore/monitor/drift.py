"""How far data has moved from what a model was trained on, seen through histograms of each site.

A site counts its rows into bins that all sites share (`Bins`, made from the training features,
so that nobody needs another's rows); counts are summed, and two sums give a population
stability index a column. Under 0.1 is read as stable, over 0.25 as a real change.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedcore.data.features import Columns, Features
from fedcore.data.schema import Schema
from fedcore.data.shards import read_shard
from fedcore.data.statistics import as_words
from fedcore.errors import BadInput
from fedcore.types import Floats

Counts: TypeAlias = Mapping[str, NDArray[np.int64]]  # column -> (bins,)

# Deciles of the normal distribution: ten bins of equal share where a column is normal.
_DECILES = np.array([-1.2816, -0.8416, -0.5244, -0.2533, 0.0, 0.2533, 0.5244, 0.8416, 1.2816])
_HALF = 0.5  # added to each count: an empty bin is rare, not impossible


@dataclass(frozen=True)
class Bins:
    """Edges of numeric columns, words of categorical ones; missing and unknown have bins of their own."""

    edges: Mapping[str, Floats]
    words: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, features: Features) -> "Bins":
        """Bins around the training mean, in standard deviations; an array set is one column ``x``."""
        if features.shape:
            return cls({"x": _DECILES}, {})
        edges = {s.name: s.center[0] + s.scale[0] * _DECILES for s in features.scales}
        return cls(edges, {v.name: v.words for v in features.vocabularies})


def histogram(columns: Columns, features: Features) -> dict[str, NDArray[np.int64]]:
    """Counts of one site's rows in the shared bins: all that leaves the site.

    Of an array set the mean of each encoded row is counted. Raises `BadInput` for a missing column.
    """
    bins = Bins.of(features)
    if features.shape:
        return {
            "x": _count(
                features.encode(columns).mean(axis=tuple(range(1, 1 + len(features.shape)))), _DECILES
            )
        }
    absent = sorted({*bins.edges, *bins.words} - set(columns))
    if absent:
        raise BadInput(
            f"column {absent[0]!r} is missing, so its drift is unknown; send all columns of the schema"
        )
    numeric = {name: _count(np.asarray(columns[name], np.float64), e) for name, e in bins.edges.items()}
    return numeric | {name: _tally(as_words(columns[name]), words) for name, words in bins.words.items()}


def count_shards(files: Iterable[Path], schema: Schema, features: Features) -> dict[str, NDArray[np.int64]]:
    """Summed counts of shard files, of one site or many. Raises `BadData` for an unreadable file."""
    return merged(histogram(read_shard(file, schema).columns, features) for file in files)


def merged(sites: Iterable[Counts]) -> dict[str, NDArray[np.int64]]:
    """The sum of all sites' counts, equal to those of the pooled rows. Raises `BadInput` for other bins."""
    total: dict[str, NDArray[np.int64]] = {}
    for site in sites:
        shapes = {name: counts.shape for name, counts in site.items()}
        if total and shapes != {name: counts.shape for name, counts in total.items()}:
            raise BadInput("two sites counted in different bins; give all sites the same features.json")
        total = {name: counts + total.get(name, 0) for name, counts in site.items()}
    return total


def stability(reference: Counts, current: Counts) -> dict[str, float]:
    """Population stability index of each column, ``sum((q - p) * ln(q / p))``, 0 where nothing moved.

    Symmetric and never negative. Shares come from counts plus one half. Raises `BadInput` where
    a side has no rows or other bins.
    """
    if {k: v.shape for k, v in reference.items()} != {k: v.shape for k, v in current.items()}:
        raise BadInput(
            "reference and newer data were counted in different bins; count both with the same features"
        )
    return {name: _index(name, reference[name], current[name]) for name in sorted(reference)}


def _index(name: str, reference: NDArray[np.int64], current: NDArray[np.int64]) -> float:
    if not reference.sum() or not current.sum():
        raise BadInput(f"no rows to compare in column {name!r}; give at least one row on either side")
    p, q = (_shares(counts) for counts in (reference, current))
    return float(((q - p) * np.log(q / p)).sum())


def _shares(counts: NDArray[np.int64]) -> Floats:
    shares: Floats = (counts + _HALF) / (counts.sum() + _HALF * len(counts))
    return shares


def _count(values: NDArray[np.floating], edges: Floats) -> NDArray[np.int64]:
    """Counts per bin (edges + 1,), then of missing values."""
    missing = np.isnan(values)
    place = np.searchsorted(edges, values[~missing], side="right")
    return np.append(np.bincount(place, minlength=len(edges) + 1), missing.sum()).astype(np.int64)


def _tally(values: NDArray[np.str_], words: tuple[str, ...]) -> NDArray[np.int64]:
    """Counts per word, then of unknown words, then of missing ones (the empty word)."""
    found, counts = np.unique(values, return_counts=True)
    seen = dict(zip(found.tolist(), counts.tolist(), strict=True))
    known = [seen.pop(word, 0) for word in words]
    missing = seen.pop("", 0)
    return np.array([*known, sum(seen.values()), missing], np.int64)
