"""Many sites judged in one pass: never more lenient than a site judged alone, and the same results."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.config import ChecksConfig
from fedcore.data import checks
from fedcore.data.checks import check_sites
from fedcore.data.expectations import SITE, Judge, frame
from fedcore.data.schema import Numeric, Schema
from fedcore.data.shards import shard_files

Rows = Callable[..., dict[str, list[Any]]]
Lay = Callable[[Path, dict[str, list[Any]]], Path]

CHANGES: dict[str, Callable[[dict[str, list[Any]]], dict[str, list[Any]]]] = {
    "none": lambda rows: rows,
    "aged": lambda rows: rows | {"age": [999.0, *rows["age"][1:]]},
    "doubled": lambda rows: {name: [*column, column[0]] for name, column in rows.items()},
    "few": lambda rows: {name: column[:3] for name, column in rows.items()},
    "gaps": lambda rows: rows | {"pulse": [None] * 16 + [70.0 + i for i in range(4)]},
    "half": lambda rows: rows | {"pulse": [None] * 10 + [70.0 + i for i in range(10)]},
    "holes": lambda rows: rows | {"age": [None, *rows["age"][1:]]},
    "labels": lambda rows: rows | {"sick": ["2", *rows["sick"][1:]]},
    "lacking": lambda rows: {name: column for name, column in rows.items() if name != "pulse"},
    "text": lambda rows: rows | {"age": ["old", *rows["age"][1:]]},
    "words": lambda rows: rows | {"ward": ["c", *rows["ward"][1:]]},
}


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge()


@pytest.mark.no_cover  # what it does over and over other tests run once, and tracing makes it four times as slow
@settings(max_examples=60, deadline=None)
@given(
    changes=st.lists(st.one_of(st.just("none"), st.sampled_from(list(CHANGES))), min_size=2, max_size=4),
    duplicates=st.sampled_from([0.0, 0.1, 1.0]),
    missing=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_sites_that_pass_together_pass_alone(
    judge: Judge,
    schema: Schema,
    rows: Rows,
    lay: Lay,
    tmp_path_factory: pytest.TempPathFactory,
    changes: list[str],
    duplicates: float,
    missing: float,
) -> None:
    """Together implies alone; and where nothing may be wrong, together is what is found."""
    place = tmp_path_factory.mktemp("together")
    limits = ChecksConfig(min_rows=20, max_missing=missing, max_duplicates=duplicates, docs=False)
    sites = {
        str(i): frame(shard_files(lay(place / str(i) / "a.csv", CHANGES[change](rows(20, seed=i)))), schema)
        for i, change in enumerate(changes)
    }
    alone = [
        all(verdict.held for verdict in judge.judge(site, part, schema, limits).verdicts)
        for site, part in sites.items()
    ]
    together = judge.all_pass(sites, schema, limits)
    assert all(alone) or not together
    if set(changes) == {"none"} and missing:
        assert together


def test_results_are_the_same_together_and_alone(
    tmp_path: Path, schema: Schema, rows: Rows, lay: Lay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bad site among good ones is found, by its own name and with its own reasons; the others pass."""
    monkeypatch.setattr(checks, "GROUP_SITES", 4)
    root = tmp_path / "sites"
    for i, change in enumerate([*CHANGES, "none", "none", "none", "none", "none"]):
        lay(root / f"s{i:02d}" / "rows.csv", CHANGES[change](rows(20, seed=i)))
    lay(root / "torn" / "rows.parquet", rows(20))
    (root / "torn" / "rows.parquet").write_bytes(b"PAR1")
    schema.save(root)
    limits = ChecksConfig(min_rows=20, docs=False)
    together = check_sites(root, limits, tmp_path / "together")
    alone = check_sites(root, replace(limits, docs=True), tmp_path / "alone")
    assert together == alone
    assert list(together) == sorted(together)
    assert [site for site, result in together.items() if result.passed] == [
        "s00", "s05", *(f"s{i:02d}" for i in range(11, 16))
    ]  # fmt: skip
    assert not (tmp_path / "together" / "docs" / "s00").exists()


def test_the_same_row_at_two_sites_is_no_duplicate(
    judge: Judge, tmp_path: Path, schema: Schema, rows: Rows, lay: Lay
) -> None:
    part = frame(shard_files(lay(tmp_path / "a.csv", rows(20))), schema)
    limits = ChecksConfig(min_rows=20, docs=False)
    assert judge.all_pass({"a": part, "b": part}, schema, limits)
    twice = frame(shard_files(lay(tmp_path / "b.csv", rows(20))), schema)  # both files of the folder
    assert not judge.all_pass({"a": part, "b": twice}, schema, limits)


def test_a_group_ends_where_it_holds_enough_rows(
    tmp_path: Path, schema: Schema, rows: Rows, lay: Lay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "GROUP_ROWS", 50)
    root = tmp_path / "sites"
    for i in range(7):
        lay(root / f"s{i}" / "rows.csv", rows(25, seed=i))
    schema.save(root)
    groups = checks._groups(sorted(root.glob("s?")), schema, 256)
    assert [len(group) for group in groups] == [2, 2, 2, 1]
    assert all(r.passed for r in check_sites(root, ChecksConfig(min_rows=20, docs=False), tmp_path).values())


def test_a_column_that_has_the_name_of_the_site_s_own_is_judged_alone(
    judge: Judge, tmp_path: Path, lay: Lay
) -> None:
    named = Schema("n", "classification", "y", ("0", "1"), numeric=(Numeric(SITE, high=9),))
    rows = {SITE: [99.0, *range(19)], "y": [0, 1] * 10}
    part = frame(shard_files(lay(tmp_path / "a.csv", rows)), named)
    assert not judge.all_pass({"a": part, "b": part}, named, ChecksConfig(min_rows=20, docs=False))
