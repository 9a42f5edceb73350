"""From raw columns to the numbers a model eats, by statistics that no pooled row was needed for.

Each site describes its own training rows (`describe`), the server merges the descriptions
(`merge`), and from then on site, server and device encode rows in the same way
(`Features.encode`). Numpy only: a device imports this file. Reading files is in `federated.py`.

Missing is NaN in a numeric column and the empty word in a categorical one.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fedcore.data.pool import Pool
from fedcore.data.rows import columns_of
from fedcore.data.schema import Numeric, Schema
from fedcore.data.statistics import (
    Columns,
    SiteStatistics,
    as_words,
    count,
    describe,
    numbers,
    vocabulary,
)
from fedcore.errors import BadInput, CorruptState, TooFewClients
from fedcore.types import Json, canonical_json

__all__ = ["Columns", "Features", "SiteStatistics", "agreed", "describe", "merge"]

FLAT = 1e-12  # a deviation below this share of the mean is rounding, not variance


@dataclass(frozen=True)
class Scale:
    """How one numeric column (or the whole array) becomes a feature: ``(value or fill, minus center) / scale``."""

    name: str
    center: tuple[float, ...]
    scale: tuple[float, ...]
    fill: tuple[float, ...]
    nullable: bool = False


@dataclass(frozen=True)
class Vocabulary:
    """The words of a categorical column that have a feature of their own, sorted."""

    name: str
    words: tuple[str, ...]
    nullable: bool = False


@dataclass(frozen=True)
class Features:
    """The encoding all parties share.

    The features of a row are, in order: each numeric column, followed by 1 where it is missing
    if it is nullable; then one feature a word. An array set has one `Scale` and keeps its `shape`.
    `target` is the center and scale of a regression's label, so that models learn numbers near one.
    `tokens` is the size of the alphabet where rows are token numbers, which stay as they are; else 0.
    """

    scales: tuple[Scale, ...]
    vocabularies: tuple[Vocabulary, ...]
    shape: tuple[int, ...] = ()
    target: tuple[float, float] = (0.0, 1.0)
    tokens: int = 0

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one encoded row."""
        return self.shape or (len(self.names),)

    @property
    def width(self) -> int:
        """Numbers in one encoded row."""
        return math.prod(self.input_shape)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of a table's features in order: ``temp``, ``temp is missing``, ``origin=JFK``."""
        numeric = [[s.name, f"{s.name} is missing"] if s.nullable else [s.name] for s in self.scales]
        words = [[f"{v.name}={word}" for word in v.words] for v in self.vocabularies]
        return tuple(name for group in numeric + words for name in group)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the raw columns `encode` reads."""
        return (*(scale.name for scale in self.scales), *(v.name for v in self.vocabularies))

    def encode(self, columns: Columns) -> NDArray[np.float32]:
        """Encoded rows (n, width), or (n, *shape) for an array set. Raises `BadInput` for a missing column."""
        absent = [name for name in self.columns if name not in columns]
        if absent:
            raise BadInput(f"column {absent[0]!r} is missing; a row needs {', '.join(self.columns)}")
        return self._encode_array(columns) if self.shape else self._encode_table(columns)

    def _encode_array(self, columns: Columns) -> NDArray[np.float32]:
        x, scale = np.asarray(columns["x"]), self.scales[0]
        if x.shape[1:] != self.shape:
            raise BadInput(
                f"a row of x has shape {x.shape[1:]}, the model takes {self.shape}; reshape the rows"
            )
        center, unit = (
            np.array(part, np.float32).reshape(self.shape) for part in (scale.center, scale.scale)
        )
        return (x.astype(np.float32) - center) / unit

    def _encode_table(self, columns: Columns) -> NDArray[np.float32]:
        rows = len(np.asarray(columns[self.columns[0]])) if self.columns else 0
        encoded, at = np.zeros((rows, self.width), np.float32), 0
        for scale in self.scales:
            values = np.asarray(columns[scale.name], np.float64)
            missing = np.isnan(values)
            encoded[:, at] = (np.where(missing, scale.fill[0], values) - scale.center[0]) / scale.scale[0]
            if scale.nullable:
                encoded[:, at + 1] = missing
            at += 2 if scale.nullable else 1
        for column in self.vocabularies:
            if column.words:
                row, word = _positions(as_words(columns[column.name]), column.words)
                encoded[row, at + word] = 1
            at += len(column.words)
        return encoded

    def validate_rows(self, rows: Sequence[Mapping[str, Json]]) -> Columns:
        """Columns of rows of raw values: numbers, words, None where missing is allowed; arrays as nested lists under ``x``.

        The schema is closed: raises `BadInput` naming row (from 0) and column for an unknown or
        missing column, text in a number, a number that is not finite, a wrong shape.
        """
        return columns_of(rows, self)

    def to_json(self) -> str:
        """Canonical JSON text: equal features, equal bytes."""
        return canonical_json(
            {name: value for name, value in asdict(self).items() if name != "tokens" or value}
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` wrote. Raises `CorruptState` for anything else."""
        try:
            tree = json.loads(text)
            scales = tuple(_scale(part) for part in tree["scales"])
            vocabularies = tuple(
                Vocabulary(str(part["name"]), vocabulary(part["words"]), bool(part["nullable"]))
                for part in tree["vocabularies"]
            )
            shape = tuple(count(size) for size in tree["shape"])
            if shape and [len(scale.center) for scale in scales] != [math.prod(shape)]:
                raise ValueError("shape and scales differ")
            center, unit = numbers(tree["target"])
            if unit <= 0:
                raise ValueError("the target's scale is not positive")
            return cls(scales, vocabularies, shape, (center, unit), count(tree.get("tokens", 0)))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise CorruptState(f"features.json does not describe features ({error}); train again") from None


def merge(statistics: Iterable[SiteStatistics], schema: Schema, standardize: bool = True) -> Features:
    """Features from all sites' statistics: equal to those of the pooled rows, whatever the order of the sites.

    Means and squared deviations are those of exact sums, held for one site at a time (`Pool`), so
    `statistics` may come as they are made; the scale is the population's standard deviation (1
    where nothing varies). Without `standardize` numbers and a regression's label stay as they are,
    and token numbers always do. Words are united, unless the schema lists them. Raises
    `TooFewClients` without sites, `BadInput` for statistics of other columns.
    """
    widths = {c.name: 1 for c in schema.numeric} if schema.is_table else {"x": math.prod(schema.shape)}
    pools, target = {name: Pool(width) for name, width in widths.items()}, Pool(1)
    words: dict[str, set[str]] = {column.name: set() for column in schema.categorical}
    sites = 0
    for site in statistics:  # one is forgotten before the next is asked for
        _refuse_statistics(site, schema, widths)
        sites += 1
        for name, pool in pools.items():
            pool.add(site.numeric[name])
        for name, known in words.items():
            known.update(site.words[name])
        if site.target is not None:
            target.add(site.target)
    if not sites:
        raise TooFewClients(1, 0, "describing the features")
    nullable = {c.name: c.nullable for c in schema.numeric}
    scaled = standardize and not schema.tokens
    scales = tuple(_scaled(pool, name, nullable.get(name, False), scaled) for name, pool in pools.items())
    vocabularies = tuple(
        Vocabulary(c.name, tuple(sorted(c.values or words[c.name])), c.nullable) for c in schema.categorical
    )
    label = _scaled(target, "label", False, standardize)  # (0, 1) where it is not a number
    return Features(scales, vocabularies, schema.shape, (label.center[0], label.scale[0]), schema.tokens)


def agreed(schema: Schema, standardize: bool = True) -> Features:
    """Features from the schema alone: no site says anything of its rows.

    A number's range becomes -1 to 1, its middle stands for a missing one; words are those that the
    schema lists. Arrays, a regression's label, and all numbers without `standardize`, stay as they are.
    Raises `BadInput` for a column of which the schema says too little.
    """
    if schema.is_table:
        scales = tuple(_ranged(column, standardize) for column in schema.numeric)
    else:
        size = math.prod(schema.shape)
        scales = (Scale("x", (0.0,) * size, (1.0,) * size, (0.0,) * size),)
    for words in schema.categorical:
        if not words.values:
            raise BadInput(
                f"data.encoding schema: the schema lists no words of column {words.name!r}; list them in schema.json, or "
                "set data.encoding: statistics"
            )
    vocabularies = tuple(Vocabulary(c.name, tuple(sorted(c.values)), c.nullable) for c in schema.categorical)
    return Features(scales, vocabularies, schema.shape, tokens=schema.tokens)


def _ranged(column: Numeric, standardize: bool) -> Scale:
    for limit in (column.low, column.high):
        if limit is not None and (not isinstance(limit, int | float) or not math.isfinite(limit)):
            raise BadInput(
                f"data.encoding schema: column {column.name!r} has the limit {limit!r} in the schema; write a number"
            )
    if column.low is None or column.high is None:
        if standardize or column.nullable:
            raise BadInput(
                f"data.encoding schema: column {column.name!r} has no range in the schema; give it low and high in "
                "the set's schema.json (NAME.schema.json beside a table), or set data.encoding: statistics"
            )
        return Scale(column.name, (0.0,), (1.0,), (0.0,))
    middle, half = column.low / 2 + column.high / 2, column.high / 2 - column.low / 2
    if not standardize:
        return Scale(column.name, (0.0,), (1.0,), (middle,), column.nullable)
    return Scale(column.name, (middle,), (half or 1.0,), (middle,), column.nullable)


def _scaled(pool: Pool, name: str, nullable: bool, standardize: bool) -> Scale:
    try:
        pooled = pool.moments()
    except OverflowError:
        raise BadInput(
            f"column {name!r}: a site's numbers are too large to merge; set limits on it"
        ) from None
    means, width = pooled.mean, len(pooled.mean)
    if not standardize:
        return Scale(name, (0.0,) * width, (1.0,) * width, means, nullable)
    rows = max(pooled.count, 1)
    return Scale(name, means, tuple(map(_unit, pooled.m2, [rows] * width, means)), means, nullable)


def _unit(square: float, rows: int, mean: float) -> float:
    deviation = math.sqrt(square / rows)
    return deviation if deviation > FLAT * max(1.0, abs(mean)) else 1.0


def _positions(words: NDArray[np.str_], known: tuple[str, ...]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows whose word is known, and the word's number in each."""
    table = np.array(known, np.str_)
    place = np.minimum(np.searchsorted(table, words), len(table) - 1)
    rows = np.flatnonzero(table[place] == words)
    return rows, place[rows]


def _refuse_statistics(site: SiteStatistics, schema: Schema, widths: Mapping[str, int]) -> None:
    words = {column.name for column in schema.categorical}
    found = {name: len(moments.mean) for name, moments in site.numeric.items()}
    if found != dict(widths) or set(site.words) != words:
        odd = sorted({*found, *site.words} ^ {*widths, *words}) or sorted(
            n for n in widths if found[n] != widths[n]
        )
        raise BadInput(
            f"a site's statistics do not fit the schema at {odd[0]!r}; give all sites the same schema.json"
        )


def _scale(tree: Json) -> Scale:
    center, scale, fill = (numbers(tree[part]) for part in ("center", "scale", "fill"))
    if not len(center) == len(scale) == len(fill) or not all(unit > 0 for unit in scale):
        raise ValueError("a scale is not positive")
    return Scale(str(tree["name"]), center, scale, fill, bool(tree["nullable"]))
