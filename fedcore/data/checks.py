"""Is each site's data fit to train on? A site that fails is left out with its reason; the others go on.

What leaves a site is in `CheckResult` without `details`: reasons without values, a bucket
instead of a count, and a keyed hash of its data that only the site can make. Pages with
examples, and the key, stay with the site.
"""

import hashlib
import hmac
import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedcore.config import ChecksConfig
from fedcore.data.expectations import Judge, Judgement, frame
from fedcore.data.federated import read_columns
from fedcore.data.raw import write_text, writing
from fedcore.data.schema import Schema
from fedcore.data.shards import shard_files
from fedcore.errors import BadData, CorruptState
from fedcore.types import canonical_json

if TYPE_CHECKING:
    import pandas as pd

GROUP_SITES = 256  # sites judged in one pass at most
GROUP_ROWS = 50_000  # rows held in memory at once, but for a site that has more by itself


@dataclass(frozen=True)
class CheckResult:
    """The outcome for one site.

    `reasons` are short sentences without values, `failed` the names of the expectations that
    did not hold, `rows_bucket` a range such as ``1000-10000``, `digest` the keyed hash of the
    data. `details` name rows and values: they never leave the site.
    """

    site: str
    passed: bool
    reasons: tuple[str, ...]
    failed: tuple[str, ...]
    rows_bucket: str
    digest: str
    details: tuple[str, ...] = ()


def check_sites(
    root: Path, config: ChecksConfig, out: Path, keys: Path | None = None
) -> dict[str, CheckResult]:
    """The result of every site folder below `root`, by site; written to ``out/checks.json`` too.

    ``out/docs/SITE`` gets the site's page. A site whose data, schema and limits have not changed
    since is not judged again. Keys lie in `keys`, beside `root` if not given. A broken file is a
    failed check, not an error; raises `BadData` only where there are no sites at all.
    """
    schema = Schema.load(root)
    names = sorted(folder.name for folder in root.iterdir() if folder.is_dir() and folder.name[0] != ".")
    if not names:
        raise BadData(str(root), "the folder holds no sites", "run the partition stage")
    settings = hashlib.sha256((canonical_json(asdict(config)) + schema.to_json()).encode()).hexdigest()
    earlier = _earlier(out, settings)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        digests = {site: _digest(root / site, site_key(keys or root.parent / "keys", site)) for site in names}
        results = {site: r for site, r in earlier.items() if digests.get(site) == r.digest}
        changed = [root / site for site in names if site not in results]
        for result in _judged(changed, schema, config, out) if changed else ():
            results[result.site] = replace(result, digest=digests[result.site])
        results = {site: results[site] for site in names}
        text = json.dumps(
            summary(results) | {"settings": settings}, indent=2, sort_keys=True, ensure_ascii=False
        )
        write_text(out / "checks.json", text + "\n")
    return results


def summary(results: Mapping[str, CheckResult]) -> dict[str, Any]:
    """What may leave the sites, as JSON: how many passed, and each result without its details."""
    sites = {
        site: {k: v for k, v in asdict(r).items() if k != "details"} for site, r in sorted(results.items())
    }
    return {"passed": sum(r.passed for r in results.values()), "checked": len(results), "sites": sites}


def read_results(file: Path) -> dict[str, CheckResult]:
    """The results in a ``checks.json``, without details. Raises `CorruptState`."""
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))["sites"]
        return {site: _result(part) for site, part in tree.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptState(
            f"{file} does not hold check results ({error}); run the check stage again"
        ) from None


def bucket(rows: int) -> str:
    """The power of ten a count lies between, for it to be told without being exact.

    >>> bucket(3), bucket(28_409)
    ('0-10', '10000-100000')
    """
    low = 10 ** int(math.log10(rows)) if rows >= 10 else 0
    return f"{low}-{max(10, low * 10)}"


@dataclass(frozen=True)
class _Read:
    """A site's folder as read: its rows, None where they cannot be, and what training would say about them."""

    folder: Path
    rows: "pd.DataFrame | None"
    details: tuple[str, ...]


def _judged(
    folders: Sequence[Path], schema: Schema, config: ChecksConfig, out: Path
) -> Iterator[CheckResult]:
    """A result for each folder. Groups of sites that pass together are done; the others are judged alone."""
    judge = Judge()
    for group in _groups(folders, schema, 1 if config.docs else GROUP_SITES):
        rows = {site.folder.name: site.rows for site in group if site.rows is not None}
        sound = len(group) > 1 and len(rows) == len(group) and judge.all_pass(rows, schema, config)
        for site in group:
            yield _result_of(site, None if sound else judge, schema, config, out / "docs" / site.folder.name)


def _groups(folders: Sequence[Path], schema: Schema, most: int) -> Iterator[list[_Read]]:
    """The folders as read, in order: up to `most` at a time, fewer where they hold many rows."""
    group: list[_Read] = []
    rows = 0
    for folder in folders:
        group.append(site := _read(folder, schema))
        rows += 0 if site.rows is None else len(site.rows)
        if len(group) == most or rows >= GROUP_ROWS:
            yield group
            group, rows = [], 0
    if group:
        yield group


def _read(folder: Path, schema: Schema) -> _Read:
    details = _trouble(folder, schema)
    try:
        return _Read(folder, frame(shard_files(folder), schema), details)
    except BadData:
        return _Read(folder, None, details)


def _result_of(
    site: _Read, judge: Judge | None, schema: Schema, config: ChecksConfig, docs: Path
) -> CheckResult:
    """The site's result, and its page below `docs`; without a `judge` it is known to meet all expectations."""
    name = site.folder.name
    if site.rows is None:
        _write_docs(docs, "", site.details)
        return CheckResult(name, False, ("a file cannot be read",), (), "unknown", "", site.details)
    judgement = judge.judge(name, site.rows, schema, config) if judge else Judgement((), len(site.rows), "")
    _write_docs(docs, judgement.page, site.details)
    missed = [verdict for verdict in judgement.verdicts if not verdict.held]
    reasons = tuple(dict.fromkeys(verdict.reason for verdict in missed))
    if site.details and not reasons:
        reasons = ("a file does not fit the schema",)
    failed = tuple(dict.fromkeys(verdict.name for verdict in missed))
    return CheckResult(name, not reasons, reasons, failed, bucket(judgement.rows), "", site.details)


def _trouble(folder: Path, schema: Schema) -> tuple[str, ...]:
    """What training would say about the site's files, with file, column and value."""
    try:
        read_columns(folder, schema)
    except BadData as error:
        return (str(error),)
    return ()


def _write_docs(folder: Path, page: str, details: Sequence[str]) -> None:
    """The site's own page and sentences; empty ones take away what an earlier check left."""
    if page or details:
        folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("index.html", page), ("details.txt", "\n".join(details))):
        if text:
            write_text(folder / name, text)
        else:
            (folder / name).unlink(missing_ok=True)


def _earlier(out: Path, settings: str) -> dict[str, CheckResult]:
    """Results under the same settings, with the details the site kept; none where there is nothing usable."""
    file = out / "checks.json"
    try:
        if json.loads(file.read_text(encoding="utf-8"))["settings"] != settings:
            return {}
        return {
            site: replace(r, details=_details(out / "docs" / site)) for site, r in read_results(file).items()
        }
    except (OSError, ValueError, KeyError, TypeError, CorruptState):
        return {}


def _details(folder: Path) -> tuple[str, ...]:
    file = folder / "details.txt"
    return tuple(file.read_text(encoding="utf-8").splitlines()) if file.exists() else ()


def _digest(folder: Path, key: bytes) -> str:
    """Keyed hash of names and bytes of a site's files: without the key it confirms no guess."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name[0] != ".")
    names = "".join(f"{file.name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n" for file in files)
    return hmac.new(key, names.encode(), "sha256").hexdigest()


def site_key(folder: Path, site: str) -> bytes:
    """The site's key, made once and readable by its owner only."""
    file = folder / f"{site}.key"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with os.fdopen(
            os.open(part := folder / f".{site}.{os.getpid()}", os.O_WRONLY | os.O_CREAT, 0o600), "w"
        ) as new:
            new.write(secrets.token_hex(32))
        try:
            os.link(part, file)  # refuses if another process was first
        except FileExistsError:
            pass
        finally:
            part.unlink()
    return bytes.fromhex(file.read_text(encoding="ascii"))


def _result(tree: dict[str, Any]) -> CheckResult:
    reasons, failed = tuple(map(str, tree["reasons"])), tuple(map(str, tree["failed"]))
    return CheckResult(
        str(tree["site"]),
        bool(tree["passed"]),
        reasons,
        failed,
        str(tree["rows_bucket"]),
        str(tree["digest"]),
    )
