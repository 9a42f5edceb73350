"""Great Expectations on good and broken sites: who is left out, why, and what may leave the site."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcore.config import ChecksConfig
from fedcore.data.checks import CheckResult, bucket, check_sites, read_results, summary
from fedcore.data.schema import Numeric, Schema
from fedcore.errors import BadData, CorruptState, StorageError

Rows = Callable[..., dict[str, list[Any]]]
Lay = Callable[[Path, dict[str, list[Any]]], Path]
LIMITS = ChecksConfig(min_rows=20)
OLD = 987_654.25  # a value that must not leave its site

BROKEN = {  # site: what is wrong with its rows, the reason that leaves it, a word of what stays
    "aged": (
        lambda rows: rows | {"age": [OLD, *rows["age"][1:]]},
        "column 'age' holds numbers outside 0 to 120",
        "",
    ),
    "doubled": (lambda rows: {n: [*c, c[0]] for n, c in rows.items()}, "there are duplicated rows", ""),
    "few": (lambda rows: {n: c[:3] for n, c in rows.items()}, "fewer than 20 rows", ""),
    "gaps": (
        lambda rows: rows | {"pulse": [None] * 40},
        "column 'pulse': more than 50% of the values are missing",
        "",
    ),
    "holes": (
        lambda rows: rows | {"age": [None, *rows["age"][1:]]},
        "column 'age': more than 0% of",
        "row 0",
    ),
    "labels": (
        lambda rows: rows | {"sick": ["2", *rows["sick"][1:]]},
        "column 'sick' holds something else than 0, 1",
        "'2'",
    ),
    "lacking": (
        lambda rows: {n: c for n, c in rows.items() if n != "pulse"},
        "column 'pulse' is missing",
        "rows.csv",
    ),
    "text": (
        lambda rows: rows | {"age": ["old", *rows["age"][1:]]},
        "column 'age' holds text, numbers are",
        "'old'",
    ),
    "words": (
        lambda rows: rows | {"ward": ["c", *rows["ward"][1:]]},
        "column 'ward' holds something else than a, b",
        "",
    ),
    "infinite": (
        lambda rows: rows | {"pulse": ["inf", *rows["pulse"][1:]]},
        "a file does not fit the schema",
        "row 0",
    ),
}


@pytest.fixture(scope="module")
def checked(
    tmp_path_factory: pytest.TempPathFactory, schema: Schema, rows: Rows, lay: Lay
) -> tuple[Path, dict[str, CheckResult]]:
    """A folder of one good site of two shards, every kind of broken one, and an unreadable, an empty, a rowless one."""
    place = tmp_path_factory.mktemp("checks")
    root = place / "sites"
    lay(root / "good" / "1.parquet", rows(15, seed=1))
    lay(root / "good" / "2.csv", rows(15, seed=2))
    for site, (change, _, _) in BROKEN.items():
        lay(root / site / "rows.csv", change(rows(40)))
    lay(root / "rowless" / "rows.csv", rows(0))
    lay(root / "torn" / "rows.parquet", rows(40))
    (root / "torn" / "rows.parquet").write_bytes(b"PAR1")
    (root / "void").mkdir()
    schema.save(root)
    return place, check_sites(root, LIMITS, place / "out")


def test_a_good_site_passes_on_all_its_shards_together(checked: tuple[Path, dict[str, CheckResult]]) -> None:
    good = checked[1]["good"]
    assert good == CheckResult("good", True, (), (), "10-100", good.digest)
    assert [site for site, result in checked[1].items() if result.passed] == ["good"]


@pytest.mark.parametrize("site", BROKEN)
def test_a_broken_site_is_left_out_with_its_reason(
    site: str, checked: tuple[Path, dict[str, CheckResult]]
) -> None:
    _, reason, stays = BROKEN[site]
    result = checked[1][site]
    assert len(result.reasons) == 1
    assert result.reasons[0].startswith(reason)
    assert stays in " ".join(result.details)
    assert bool(result.failed) == (site != "infinite")


@pytest.mark.parametrize("site", ["torn", "void"])
def test_a_site_that_cannot_be_read_is_a_failed_check(
    site: str, checked: tuple[Path, dict[str, CheckResult]]
) -> None:
    result = checked[1][site]
    assert (result.passed, result.reasons, result.rows_bucket) == (
        False,
        ("a file cannot be read",),
        "unknown",
    )
    assert result.details


def test_a_file_without_rows_has_too_few(checked: tuple[Path, dict[str, CheckResult]]) -> None:
    assert "fewer than 20 rows" in checked[1]["rowless"].reasons


def test_no_value_leaves_a_site_and_the_page_with_examples_stays(
    checked: tuple[Path, dict[str, CheckResult]],
) -> None:
    place, results = checked
    told = (place / "out" / "checks.json").read_text()
    assert "old'" not in told
    assert str(OLD) not in told
    assert "details" not in told
    assert str(OLD) in (place / "out" / "docs" / "aged" / "index.html").read_text()
    assert "'old'" in (place / "out" / "docs" / "text" / "details.txt").read_text()
    assert not (place / "out" / "docs" / "good" / "details.txt").exists()
    assert summary(results)["passed"] == 1


def test_what_is_told_is_read_back(checked: tuple[Path, dict[str, CheckResult]]) -> None:
    place, results = checked
    told = read_results(place / "out" / "checks.json")
    assert told == {site: replace(result, details=()) for site, result in results.items()}


def test_unchanged_sites_are_not_judged_again(
    checked: tuple[Path, dict[str, CheckResult]], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, results = checked
    monkeypatch.setattr("fedcore.data.checks.Judge", None)  # would fail if it were called
    assert check_sites(place / "sites", LIMITS, place / "out") == results


def test_a_digest_follows_the_data_and_needs_the_site_s_key(
    tmp_path: Path, schema: Schema, rows: Rows, lay: Lay
) -> None:
    limits = ChecksConfig(min_rows=20, docs=False)
    lay(tmp_path / "sites" / "s" / "rows.csv", rows(30))
    schema.save(tmp_path / "sites")
    first = check_sites(tmp_path / "sites", limits, tmp_path / "out")["s"]
    (tmp_path / "out" / "checks.json").unlink()
    assert check_sites(tmp_path / "sites", limits, tmp_path / "out")["s"] == first
    assert not (tmp_path / "out" / "docs" / "s" / "index.html").exists()
    other_key = check_sites(tmp_path / "sites", limits, tmp_path / "else", keys=tmp_path / "other")["s"]
    assert other_key.digest != first.digest
    assert (tmp_path / "keys" / "s.key").stat().st_mode & 0o777 == 0o600
    lay(tmp_path / "sites" / "s" / "rows.csv", rows(31))
    assert check_sites(tmp_path / "sites", limits, tmp_path / "out")["s"].digest != first.digest


def test_other_limits_judge_again(checked: tuple[Path, dict[str, CheckResult]], tmp_path: Path) -> None:
    place, _ = checked
    lenient = ChecksConfig(min_rows=3, max_duplicates=0.1, docs=False)
    results = check_sites(place / "sites", lenient, tmp_path / "out", keys=place / "keys")
    assert results["few"].passed
    assert results["doubled"].passed
    assert not results["labels"].passed


def test_arrays_are_checked_for_shape_and_duplicates(tmp_path: Path) -> None:
    schema = Schema("p", "classification", "y", ("0", "1"), shape=(2,))
    x = np.arange(60.0).reshape(30, 2)
    sets = {"good": x, "doubled": np.concatenate([x[:29], x[:1]]), "flat": x[:, :1]}
    for site, array in sets.items():
        (tmp_path / "sites" / site).mkdir(parents=True)
        np.savez(
            tmp_path / "sites" / site / "rows.npz",
            x=array,
            y=np.arange(30) % 2 if site != "doubled" else np.zeros(30, int),
        )
    schema.save(tmp_path / "sites")
    results = check_sites(tmp_path / "sites", LIMITS, tmp_path / "out")
    assert {site: result.reasons for site, result in results.items()} == {
        "good": (),
        "doubled": ("there are duplicated rows",),
        "flat": ("rows of x have shape (1,), expected (2,)",),
    }


def test_the_label_of_a_regression_must_be_a_number(tmp_path: Path, lay: Lay) -> None:
    schema = Schema(
        "r", "regression", "price", numeric=(Numeric("size", low=0), Numeric("age", high=9)), unique=("size",)
    )
    lay(tmp_path / "sites" / "a" / "rows.csv", {"size": range(30), "age": [1] * 30, "price": range(30)})
    lay(
        tmp_path / "sites" / "b" / "rows.csv",
        {"size": [-1, *range(29)], "age": [10] * 30, "price": ["dear", *range(29)]},
    )
    lay(tmp_path / "sites" / "c" / "rows.csv", {"size": [0, *range(29)], "age": [1] * 30, "price": range(30)})
    schema.save(tmp_path / "sites")
    results = check_sites(tmp_path / "sites", LIMITS, tmp_path / "out")
    assert {site: result.reasons for site, result in results.items()} == {
        "a": (),
        "b": (
            "column 'size' holds numbers outside 0 to any",
            "column 'age' holds numbers outside any to 9",
            "column 'price' holds text, numbers are needed",
        ),
        "c": ("there are duplicated rows",),
    }


def test_results_that_were_not_written_by_us_are_corrupt_and_no_cache(
    tmp_path: Path, schema: Schema, rows: Rows, lay: Lay
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "checks.json").write_text('{"sites": [1]}')
    with pytest.raises(CorruptState, match="does not hold check results"):
        read_results(tmp_path / "out" / "checks.json")
    lay(tmp_path / "sites" / "s" / "rows.csv", rows(30))
    schema.save(tmp_path / "sites")
    assert check_sites(tmp_path / "sites", LIMITS, tmp_path / "out")["s"].passed


def test_a_folder_without_sites_or_that_cannot_be_written_is_refused(
    tmp_path: Path, schema: Schema, rows: Rows, lay: Lay
) -> None:
    schema.save(tmp_path)
    with pytest.raises(BadData, match="the folder holds no sites; run the partition stage"):
        check_sites(tmp_path, LIMITS, tmp_path / "out")
    lay(tmp_path / "s" / "rows.csv", rows(30))
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        check_sites(tmp_path, LIMITS, tmp_path / "file" / "out", keys=tmp_path / "keys")


def test_a_key_made_by_another_process_first_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fedcore.data import checks

    def late(part: Path, file: Path) -> None:
        file.write_text("ab" * 32)
        raise FileExistsError(part)

    monkeypatch.setattr(os, "link", late)
    assert checks.site_key(tmp_path, "s") == b"\xab" * 32
    assert [file.name for file in tmp_path.iterdir()] == ["s.key"]


@given(st.integers(0, 10**9))
def test_a_bucket_holds_the_count_it_hides(rows: int) -> None:
    low, high = map(int, bucket(rows).split("-"))
    assert low <= rows < high
    assert low == 0 or high == 10 * low


def test_the_summary_is_json(checked: tuple[Path, dict[str, CheckResult]]) -> None:
    assert json.loads(json.dumps(summary(checked[1])))["checked"] == len(checked[1])
