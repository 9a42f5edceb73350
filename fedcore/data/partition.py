"""Raw rows -> one folder a site: by the natural clients, or by one of `PARTITIONERS`.

``OUT/SITE`` holds a site's shards and nothing else; all sites share ``OUT/schema.json``.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.config import DataConfig
from fedcore.data.partitioners import PARTITIONERS, Rows, draw
from fedcore.data.raw import (
    CLIENT,
    VERSION,
    Raw,
    column,
    natural_clients,
    read_raw_set,
    write_npz,
    write_parquet,
    write_text,
    writing,
)
from fedcore.data.schema import Schema
from fedcore.data.shards import SUFFIXES
from fedcore.data.statistics import as_words
from fedcore.errors import BadConfig, BadInput, UnknownName

BINS = 10  # quantiles that stand for classes where the label is a number


def sites(raw: Path, config: DataConfig, seed: int) -> list[str]:
    """Names of the sites that `config` makes of the raw folder, in its order; nothing is written.

    Raises `UnknownName` for a site that is not there, `BadConfig` where the set has no natural clients.
    """
    known = _all_sites(raw, config)
    for site in config.sites:
        if site not in known:
            raise UnknownName("site", site, known)
    return list(dict.fromkeys(config.sites)) or known


def partition(raw: Path, out: Path, config: DataConfig, seed: int) -> list[str]:
    """Names of the sites, once each has its folder ``out/SITE`` and they share ``out/schema.json``, written last.

    Folders of sites that are no more are removed. Equal raw data, `config` and `seed` give equal bytes.
    """
    names, rows = sites(raw, config, seed), _rows_of_sites(raw, config, seed)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        (out / "schema.json").unlink(missing_ok=True)
        for folder in out.iterdir():
            if folder.name not in names and _is_site(folder):
                shutil.rmtree(folder)
    everything = read_raw_set(raw)
    for site in names:
        _write(everything, site, rows[site] if rows else None, out)
    share_schema(everything.schema, out)
    return names


def write_site(raw: Path, site: str, out: Path, config: DataConfig, seed: int) -> Path:
    """``out/SITE`` with this site's rows alone, in the bytes that `partition` gives. Raises as `sites` does."""
    if site not in _all_sites(raw, config):
        raise UnknownName("site", site, _all_sites(raw, config))
    rows = _rows_of_sites(raw, config, seed)
    natural = not rows
    folder = _write(read_raw_set(raw, site if natural else None), site, None if natural else rows[site], out)
    share_schema(Schema.load(raw), out)
    return folder


def strata(raw: Path, schema: Schema) -> NDArray[Any]:
    """What a partitioner spreads over clients (n,): the class, or the label's decile where it is a number."""
    found = column(raw, schema.label)
    if found is None:
        raise BadInput(f"{schema.dataset} keeps one file a client; set data.partition.scheme to natural")
    if schema.task == "classification":
        return as_words(found)
    values = found.astype(np.float64)
    return np.searchsorted(np.quantile(values, np.arange(1, BINS) / BINS), values)


def _all_sites(raw: Path, config: DataConfig) -> list[str]:
    settings = config.partition
    if settings.scheme != "natural":
        strata(raw, Schema.load(raw))
        return [_name(i, settings.clients) for i in range(settings.clients)]
    names = natural_clients(raw)
    if not names:
        known = ", ".join(PARTITIONERS)
        raise BadConfig(
            "data.partition.scheme", "natural", f"{Schema.load(raw).dataset} has no clients, use {known}"
        )
    return names


def _name(i: int, clients: int) -> str:
    return f"client-{i:0{max(3, len(str(clients - 1)))}d}"


def _rows_of_sites(raw: Path, config: DataConfig, seed: int) -> dict[str, Rows]:
    """Row numbers of each site that a partitioner makes; empty for natural clients."""
    settings = config.partition
    if settings.scheme == "natural":
        return {}
    parts = draw(strata(raw, Schema.load(raw)), settings, seed)
    return {_name(i, settings.clients): rows for i, rows in enumerate(parts)}


def _write(raw: Raw, site: str, rows: Rows | None, out: Path) -> Path:
    """Fill a hidden neighbour of the site's folder and move it into place."""
    folder, part = out / site, out / f".{site}.part"
    with writing(out):
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            _write_rows(raw, site, rows, part)
            shutil.rmtree(folder, ignore_errors=True)
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return folder


def _write_rows(raw: Raw, site: str, rows: Rows | None, folder: Path) -> None:
    if raw.files:
        file = raw.files[site]
        shutil.copyfile(file, folder / f"rows{file.suffix}")
    elif raw.arrays:
        chosen = raw.arrays[CLIENT] == site if rows is None else rows
        write_npz({n: a[chosen] for n, a in raw.arrays.items() if n != CLIENT}, folder / "rows.npz")
    else:
        _write_table(raw, site, rows, folder)


def _write_table(raw: Raw, site: str, rows: Rows | None, folder: Path) -> None:
    """One file a data version (a month) where there are versions: a new one is a new file."""
    assert raw.table is not None
    import pyarrow.compute as pc

    table = raw.table.filter(pc.equal(raw.table[CLIENT], site)) if rows is None else raw.table.take(rows)
    names = [name for name in table.column_names if name not in (CLIENT, VERSION)]
    if VERSION not in table.column_names:
        write_parquet(table.select(names), folder / "rows.parquet")
        return
    for version in sorted(pc.unique(table[VERSION]).to_pylist()):
        shard = table.filter(pc.equal(table[VERSION], version)).select(names)
        write_parquet(shard, folder / f"{version}.parquet")


def _is_site(folder: Path) -> bool:
    """Whether a folder holds shards only, so that removing it destroys nothing that is not ours."""
    return folder.is_dir() and all(file.suffix in SUFFIXES for file in folder.iterdir())


def share_schema(schema: Schema, out: Path) -> None:
    """Write ``out/schema.json``, which all sites read, unless it says the same already."""
    file, text = out / "schema.json", schema.to_json()
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            write_text(file, text)
