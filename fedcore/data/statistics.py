"""What a site says about its rows so that all sites can encode alike: moments and words, no rows.

Numpy only. Merging the statistics of all sites is in `features.py`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedcore.data.schema import Schema
from fedcore.errors import BadInput
from fedcore.types import Floats, Json

Columns: TypeAlias = Mapping[str, NDArray[Any]]  # a table: name -> (n,); an array set: {"x": (n, *shape)}


@dataclass(frozen=True)
class Moments:
    """Rows counted, mean and sum of squared deviations from it: one value a feature (one for a table's column)."""

    count: int
    missing: int
    mean: tuple[float, ...]
    m2: tuple[float, ...]


@dataclass(frozen=True)
class SiteStatistics:
    """All that leaves a site about its columns: moments of numbers, and which words occur (not how often).

    `target` holds the moments of a regression's label.
    """

    rows: int
    numeric: Mapping[str, Moments]
    words: Mapping[str, tuple[str, ...]]
    target: Moments | None = None

    def tree(self) -> Json:
        """As JSON values."""
        return {
            "rows": self.rows,
            "numeric": {name: _tree(moments) for name, moments in self.numeric.items()},
            "words": {name: list(words) for name, words in self.words.items()},
            "target": None if self.target is None else _tree(self.target),
        }

    @classmethod
    def from_tree(cls, tree: Json) -> Self:
        """What `tree` gave. Raises `BadInput` where a count, moment or word cannot be one: a site is not trusted."""
        try:
            numeric = {str(name): _moments(part) for name, part in tree["numeric"].items()}
            words = {str(name): vocabulary(part) for name, part in tree["words"].items()}
            target = tree.get("target")
            return cls(count(tree["rows"]), numeric, words, _moments(target) if target else None)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise BadInput(f"these are not a site's statistics ({error}); describe the site again") from None


def describe(columns: Columns, schema: Schema, labels: NDArray[Any] | None = None) -> SiteStatistics:
    """Statistics of one site's rows, the only facts about columns that leave it. Missing values are left out.

    `labels` (n,) are looked at for regression only.
    """
    regression = schema.task == "regression" and labels is not None
    target = _describe(np.asarray(labels, np.float64)[:, None]) if regression else None
    if not schema.is_table:
        x = np.asarray(columns["x"], np.float64)
        return SiteStatistics(len(x), {"x": _describe(x.reshape(len(x), -1))}, {}, target)
    rows = max((len(column) for column in columns.values()), default=0)
    numeric = {c.name: _describe(np.asarray(columns[c.name], np.float64)[:, None]) for c in schema.numeric}
    words = {
        c.name: tuple(str(w) for w in np.unique(as_words(columns[c.name])) if w) for c in schema.categorical
    }
    return SiteStatistics(rows, numeric, words, target)


def as_words(column: NDArray[Any]) -> NDArray[np.str_]:
    """`column` as text, whole numbers without a fraction, missing values as the empty word.

    >>> as_words(np.array([1.0, 2.0])).tolist(), as_words(np.array(["a", None], dtype=object)).tolist()
    (['1', '2'], ['a', ''])
    """
    if column.dtype.kind == "U":
        return column
    if column.dtype.kind == "f":
        whole = np.isfinite(column) & (column == np.floor(column))
        words = np.where(
            whole, np.where(whole, column, 0).astype(np.int64).astype(np.str_), column.astype(np.str_)
        )
        return np.where(np.isnan(column), "", words)
    if column.dtype.kind == "O":
        return np.array(["" if _is_missing(word) else str(word) for word in column], np.str_)
    return column.astype(np.str_)


def _is_missing(word: object) -> bool:
    return word is None or (isinstance(word, float) and math.isnan(word))


def _describe(values: Floats) -> Moments:
    """Moments of each column of `values` (n, k); a column's missing values count only where k is 1."""
    missing = np.isnan(values).any(axis=1)
    present = values[~missing]
    if not len(present):
        return Moments(0, int(missing.sum()), (0.0,) * values.shape[1], (0.0,) * values.shape[1])
    mean = present.mean(axis=0)
    deviations = present - mean
    # The second term is the rounding error of the mean (Chan, Golub & LeVeque 1983, equation 1.7).
    m2 = (deviations**2).sum(axis=0) - deviations.sum(axis=0) ** 2 / len(present)
    return Moments(len(present), int(missing.sum()), tuple(mean.tolist()), tuple(np.maximum(m2, 0).tolist()))


def count(value: Json) -> int:
    """`value`, if it is a count. Raises `ValueError`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is not a count")
    return value


def numbers(values: Json) -> tuple[float, ...]:
    """`values`, if they are finite numbers. Raises `ValueError`."""
    numbers = np.asarray(values, np.float64)
    if numbers.ndim != 1 or not np.isfinite(numbers).all():
        raise ValueError("a number is not finite")
    return tuple(numbers.tolist())


def vocabulary(values: Json) -> tuple[str, ...]:
    """`values`, if they are sorted, different texts. Raises `ValueError`."""
    if not all(isinstance(value, str) for value in values) or sorted(set(values)) != list(values):
        raise ValueError("words are not sorted, different texts")
    return tuple(values)


def _tree(moments: Moments) -> Json:
    return {**vars(moments), "mean": list(moments.mean), "m2": list(moments.m2)}


def _moments(tree: Json) -> Moments:
    moments = Moments(
        count(tree["count"]), count(tree["missing"]), numbers(tree["mean"]), numbers(tree["m2"])
    )
    if len(moments.mean) != len(moments.m2) or any(square < 0 for square in moments.m2):
        raise ValueError("moments do not fit together")
    return moments


def no_token(x: NDArray[np.float32], tokens: int) -> str | None:
    """What is wrong with `x` as token numbers from 0 below `tokens`; None where nothing is."""
    wrong = (x != np.floor(x)) | (x < 0) | (x >= tokens)
    return (
        f"holds {x[wrong][0]:g}, and tokens are whole numbers from 0 to {tokens - 1}" if wrong.any() else None
    )
