"""A data set before it is split into sites: one folder that `ingest` writes and `partition` reads.

``schema.json`` and one of: ``raw.parquet`` (rows, with a ``client`` column where clients are
natural and a ``data_version`` column where data arrive over time), ``raw.npz`` (x, the label, maybe
client), or ``files/`` (one file a client, taken as it is, so that a broken one is judged by the
checks and not here).
"""

import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedcore.data.schema import Schema
from fedcore.data.shards import SUFFIXES, as_array
from fedcore.data.statistics import as_words
from fedcore.errors import BadInput, CorruptState, StorageError

if TYPE_CHECKING:
    import pyarrow as pa

CLIENT, VERSION = "client", "data_version"
_SITE = re.compile(r"^\w[\w.-]{0,99}$")


@dataclass(frozen=True)
class Raw:
    """A loaded set: its schema, and exactly one of a table, arrays, or a file for each client."""

    schema: Schema
    table: "pa.Table | None" = None
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)


def write_raw(raw: Raw, folder: Path) -> None:
    """Write `raw` into `folder`, replacing what an earlier ingest wrote; ``schema.json`` comes last."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "schema.json").unlink(missing_ok=True)
        for old in ("raw.parquet", "raw.npz"):
            (folder / old).unlink(missing_ok=True)
        shutil.rmtree(folder / "files", ignore_errors=True)
        if raw.table is not None:
            write_parquet(raw.table, folder / "raw.parquet")
        elif raw.arrays:
            write_npz(raw.arrays, folder / "raw.npz")
        else:
            (folder / "files").mkdir()
            for site, file in raw.files.items():
                shutil.copyfile(file, folder / "files" / f"{site}{file.suffix}")
        fill_whole(
            folder / "schema.json", lambda part: part.write_text(raw.schema.to_json(), encoding="utf-8")
        )


def read_raw_set(folder: Path, site: str | None = None) -> Raw:
    """What `write_raw` wrote; with `site` only that client's rows. Raises `CorruptState`."""
    schema = Schema.load(folder)
    with _readable(folder):
        if (folder / "raw.parquet").exists():
            import pyarrow.parquet

            rows = None if site is None else [(CLIENT, "==", site)]
            table = pyarrow.parquet.read_table(folder / "raw.parquet", filters=rows, use_threads=False)
            return Raw(schema, table)
        if (folder / "raw.npz").exists():
            with np.load(folder / "raw.npz", allow_pickle=False) as arrays:
                everything = dict(arrays)
            chosen = slice(None) if site is None else everything[CLIENT] == site
            return Raw(schema, arrays={name: array[chosen] for name, array in everything.items()})
        if (folder / "files").is_dir():
            files = {f.stem: f for f in sorted((folder / "files").iterdir()) if f.suffix in SUFFIXES}
            return Raw(schema, files=files if site is None else {site: files[site]})
    raise CorruptState(f"{folder} holds no raw data; run the ingest stage")


def column(folder: Path, name: str) -> NDArray[Any] | None:
    """One column of the raw rows, or None if there is none. Raises `CorruptState`."""
    if not (folder / "raw.parquet").exists():
        return read_raw_set(folder).arrays.get(name)
    import pyarrow.parquet

    with _readable(folder):
        file = pyarrow.parquet.ParquetFile(folder / "raw.parquet")
        return as_array(file.read([name]).column(name)) if name in file.schema_arrow.names else None


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CorruptState(
            f"{folder} is not readable raw data ({error}); run the ingest stage again"
        ) from None


def natural_clients(folder: Path) -> list[str]:
    """Names of the natural clients of the raw data, sorted; empty if there are none. Raises `BadInput` for a bad name."""
    schema = Schema.load(folder)
    if (folder / "files").is_dir():
        names = sorted(read_raw_set(folder).files)
    else:
        clients = column(folder, CLIENT)
        names = [] if clients is None else sorted({str(word) for word in np.unique(as_words(clients))})
    for name in names:
        if not _SITE.match(name):
            raise BadInput(
                f"client {name!r} of {schema.dataset} cannot name a folder; use letters, digits, '.', '_' and '-'"
            )
    return names


def write_parquet(table: "pa.Table", file: Path) -> None:
    """Write `table` to `file` in one step; equal tables give equal bytes."""
    import pyarrow.parquet

    plain = table.replace_schema_metadata(None).combine_chunks()
    fill_whole(file, lambda part: pyarrow.parquet.write_table(plain, part, compression="zstd"))


def write_npz(arrays: Mapping[str, NDArray[Any]], file: Path) -> None:
    """Write `arrays` to `file` in one step; equal arrays give equal bytes."""

    def save(part: Path) -> None:
        with part.open("wb") as stream:
            np.savez(stream, **dict(arrays))  # type: ignore[arg-type]

    fill_whole(file, save)


def fill_whole(file: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a hidden neighbour of `file` and move it into place; nothing half-written is left behind."""
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        write(part)
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)


def write_text(file: Path, text: str) -> None:
    """Write `text` to `file` in one step."""
    fill_whole(file, lambda part: part.write_text(text, encoding="utf-8"))


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn the system's refusal to write (full, read-only, no such place) into a `StorageError` naming the folder."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot write {error.filename or folder}: {error.strerror or error}; "
            "free some space or choose another folder"
        ) from None
