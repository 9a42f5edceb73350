"""Great Expectations on a site's rows: the suite a schema asks for, its verdicts, its page for the site.

Importing the library takes seconds, so it is imported by the function that needs it and once
for all sites; one pass costs tens of milliseconds whatever it is about, so many small sites are
first asked about together. Verdicts name columns and limits, never a value or an exact count:
they may leave the site. The page may not.
"""

import hashlib
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedcore.config import ChecksConfig
from fedcore.data.schema import Categorical, Numeric, Schema
from fedcore.data.shards import as_array, parsed, read_raw
from fedcore.data.statistics import as_words
from fedcore.errors import MissingExtra

if TYPE_CHECKING:
    import pandas as pd

ROW = "row"  # stands for the array of a row: equal arrays, equal words
SITE = "site of the row"  # which site a row is of, where several are judged together


@dataclass(frozen=True)
class Verdict:
    """One expectation: its name, whether it held, and what to say if not."""

    name: str
    held: bool
    reason: str


@dataclass(frozen=True)
class Judgement:
    """All verdicts on one site, how many rows they are about, and the page that shows them with examples."""

    verdicts: tuple[Verdict, ...]
    rows: int
    page: str


class Judge:
    """Great Expectations, loaded once for all sites."""

    def __init__(self) -> None:
        os.environ.setdefault("GX_ANALYTICS_ENABLED", "False")
        logging.getLogger("great_expectations._docs_decorators").setLevel(logging.WARNING)
        try:
            with warnings.catch_warnings():  # it imports a deprecated module of Python's own
                warnings.simplefilter("ignore", DeprecationWarning)
                import great_expectations as gx
                from great_expectations.data_context.types.base import ProgressBarsConfig
        except ImportError:
            raise MissingExtra("great-expectations", "data") from None
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = ProgressBarsConfig(globally=False)
        asset = context.data_sources.add_pandas("sites").add_dataframe_asset("site")
        self._batches = asset.add_batch_definition_whole_dataframe("rows")
        self._suite = gx.ExpectationSuite

    def judge(self, site: str, rows: "pd.DataFrame", schema: Schema, config: ChecksConfig) -> Judgement:
        """The judgement on a site's `rows`, as `frame` gives them."""
        result = self._result(site, rows, expectations(rows, schema, config))
        verdicts = tuple(_verdict(part.expectation_config, bool(part.success)) for part in result.results)
        return Judgement(verdicts, len(rows), _page(result) if config.docs else "")

    def all_pass(self, sites: Mapping[str, "pd.DataFrame"], schema: Schema, config: ChecksConfig) -> bool:
        """Whether one pass over the rows of all sites proves that each site, judged alone, passes all.

        False proves nothing: some site has to be judged alone. What is asked of single values holds
        for all rows together exactly if it holds at each site; rows are counted and missing values
        weighed a site at a time; duplicates are looked for within a site, and none may be found.
        """
        import pandas as pd

        kinds = next(iter(sites.values())).dtypes
        if SITE in kinds or not all(
            rows.dtypes.equals(kinds) and _roomy(rows, schema, config) for rows in sites.values()
        ):
            return False
        together = pd.concat(sites.values(), ignore_index=True)
        together[SITE] = np.repeat(np.arange(len(sites)), [len(rows) for rows in sites.values()])
        strict = replace(config, max_missing=1.0, max_duplicates=float(config.max_duplicates == 1))
        return bool(self._result("sites", together, expectations(together, schema, strict, (SITE,))).success)

    def _result(self, name: str, rows: "pd.DataFrame", asked: Iterator[Any]) -> Any:
        batch = self._batches.get_batch(batch_parameters={"dataframe": rows})
        return batch.validate(self._suite(name=name, expectations=list(asked)), result_format="SUMMARY")


def _roomy(rows: "pd.DataFrame", schema: Schema, config: ChecksConfig) -> bool:
    """Whether a site has enough rows, of the schema's shape, and stays below the limit of missing values."""
    columns: tuple[Numeric | Categorical, ...] = (*schema.numeric, *schema.categorical)
    nullable = [column.name for column in columns if column.nullable and column.name in rows]
    missing = rows[nullable].isna().mean()
    within = (missing == 0) | (missing < config.max_missing)
    return len(rows) >= config.min_rows and not rows.attrs["shapes"] and bool(within.all())


def _verdict(expectation: Any, held: bool) -> Verdict:
    return Verdict(expectation.type, held, expectation.meta["reason"])


def _page(result: Any) -> str:
    from great_expectations.render import renderer, view

    pages: Any = renderer
    views: Any = view
    html: str = views.DefaultJinjaPageView().render(pages.ValidationResultsPageRenderer().render(result))
    return html


def _vocabulary() -> Any:
    import great_expectations.expectations as gxe

    return gxe


def frame(files: Sequence[Path], schema: Schema) -> "pd.DataFrame":
    """All shards of a site below each other; a column that a shard lacks is left out. Raises `BadData`."""
    import pandas as pd

    seen: set[tuple[int, ...]] = set()  # shapes of rows that are not the schema's
    shards = [_cells(read_raw(file), schema, seen) for file in files]
    names = [name for name in shards[0] if all(name in shard for shard in shards)]
    rows = pd.concat(
        [pd.DataFrame({name: shard[name] for name in names}) for shard in shards], ignore_index=True
    )
    numbers = _numbers_of(schema)
    rows = rows.astype(
        {name: np.float64 for name in names if name in numbers and rows[name].dtype.kind in "iufb"}
    )
    rows.attrs["shapes"] = sorted(seen)
    return rows


def _numbers_of(schema: Schema) -> set[str]:
    """Names of the columns that hold numbers, a regression's label among them."""
    return {c.name for c in schema.numeric} | ({schema.label} if schema.task != "classification" else set())


def _cells(raw: Mapping[str, Any], schema: Schema, seen: set[tuple[int, ...]]) -> dict[str, Any]:
    """Numbers where all cells are, otherwise words with None for a missing one; an array of a row as its hash.

    Another shape than the schema's is added to `seen`, and its rows are left out.
    """
    numbers = _numbers_of(schema)
    cells: dict[str, Any] = {}
    for name in dict.fromkeys((*schema.columns, schema.label, *schema.unique)):
        if name not in raw:
            continue
        column = as_array(raw[name])
        if name == "x" and not schema.is_table:
            if column.shape[1:] == schema.shape:
                cells[ROW] = [hashlib.blake2b(row.tobytes(), digest_size=16).hexdigest() for row in column]
            else:
                seen.add(column.shape[1:])
        elif name in numbers:
            cells[name] = parsed(column)
        else:
            words = as_words(column).astype(object)
            words[words == ""] = None
            cells[name] = words
    return cells


def expectations(
    rows: "pd.DataFrame", schema: Schema, config: ChecksConfig, apart: tuple[str, ...] = ()
) -> Iterator[Any]:
    """The suite: enough rows, columns, types, missing values, ranges, words, labels, no duplicates.

    Rows that differ in a column of `apart` are no duplicates.
    """
    gxe = _vocabulary()
    few = f"fewer than {config.min_rows} rows"
    yield gxe.ExpectTableRowCountToBeBetween(min_value=config.min_rows, meta={"reason": few})
    names = schema.columns if schema.is_table else (ROW,)
    needed = tuple(dict.fromkeys((*names, schema.label, *schema.unique)))
    yield gxe.ExpectTableColumnsToMatchSet(
        column_set=list(needed), exact_match=False, meta={"reason": _absent(rows, needed, schema)}
    )
    for number in schema.numeric:
        if number.name in rows:
            yield from _number(number, rows[number.name].dtype.kind == "f", config)
    for word in schema.categorical:
        if word.name in rows:
            yield _present(word.name, word.nullable, config)
            if word.values:
                yield _words(word.name, word.values)
    if schema.label in rows:
        yield _present(schema.label, False, config)
        if schema.task != "classification":
            yield _type(schema.label)
        else:
            yield _words(schema.label, schema.classes)
    unique = schema.unique or (*names, schema.label)
    if all(name in rows for name in unique):
        yield _distinct((*apart, *unique), config)


def _absent(rows: "pd.DataFrame", needed: tuple[str, ...], schema: Schema) -> str:
    absent = [repr(name) for name in needed if name not in rows and name != ROW]
    if absent:
        return f"column {', '.join(absent)} is missing"
    shapes = ", ".join(map(str, rows.attrs.get("shapes", ()))) or "none"
    return f"rows of x have shape {shapes}, expected {schema.shape}"


def _number(number: Numeric, is_number: bool, config: ChecksConfig) -> Iterator[Any]:
    gxe = _vocabulary()
    yield _type(number.name)
    yield _present(number.name, number.nullable, config)
    if is_number and (number.low is not None or number.high is not None):
        low, high = (f"{limit:g}" if limit is not None else "any" for limit in (number.low, number.high))
        outside = f"column {number.name!r} holds numbers outside {low} to {high}"
        yield gxe.ExpectColumnValuesToBeBetween(
            column=number.name, min_value=number.low, max_value=number.high, meta={"reason": outside}
        )


def _type(name: str) -> Any:
    gxe = _vocabulary()
    text = f"column {name!r} holds text, numbers are needed"
    return gxe.ExpectColumnValuesToBeOfType(column=name, type_="float64", meta={"reason": text})


def _present(name: str, nullable: bool, config: ChecksConfig) -> Any:
    gxe = _vocabulary()
    share = config.max_missing if nullable else 0.0
    missing = f"column {name!r}: more than {share:.0%} of the values are missing"
    return gxe.ExpectColumnValuesToNotBeNull(column=name, mostly=1 - share, meta={"reason": missing})


def _words(name: str, allowed: tuple[str, ...]) -> Any:
    gxe = _vocabulary()
    listed = ", ".join(allowed[:20]) + (", …" if len(allowed) > 20 else "")
    other = f"column {name!r} holds something else than {listed}"
    return gxe.ExpectColumnValuesToBeInSet(column=name, value_set=list(allowed), meta={"reason": other})


def _distinct(names: tuple[str, ...], config: ChecksConfig) -> Any:
    gxe = _vocabulary()
    share = config.max_duplicates
    meta = {
        "reason": f"more than {share:.0%} of the rows are duplicates"
        if share
        else "there are duplicated rows"
    }
    if len(names) == 1:
        return gxe.ExpectColumnValuesToBeUnique(column=names[0], mostly=1 - share, meta=meta)
    return gxe.ExpectCompoundColumnsToBeUnique(
        column_list=list(names), mostly=1 - share, ignore_row_if="never", meta=meta
    )
