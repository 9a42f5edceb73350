"""Finished cells in a file of JSON lines, and the loop that fills it: what was interrupted goes on.

A line is written whole and synchronised before the next cell counts; a line cut short by a kill is
dropped when the file is opened. One process at a time may write.
"""

import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import groupby
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import BinaryIO

from threadpoolctl import threadpool_limits

from fedcore.config import Config
from fedcore.errors import CorruptState, RunBusy, ServiceError, StorageError
from fedcore.redteam.matrix import NONE, Asked, Cell, arena_of, key_of, play
from fedcore.redteam.trial import Arena
from fedcore.types import Json, canonical_json

_arenas: dict[str, Arena] = {}  # of this process: what the last cells used


@dataclass(frozen=True)
class Record:
    """A cell and its numbers; `at` (Unix seconds) is when it was finished."""

    cell: Cell
    numbers: dict[str, Json]
    at: float

    @property
    def score(self) -> float | None:
        """The score after the last round; None for a cell that was skipped."""
        return self.numbers["scores"][-1] if "scores" in self.numbers else None


def fill(
    asked: Asked, workdir: Path, workers: int = 0, progress: Callable[[Record], None] = lambda record: None
) -> list[Record]:
    """The records of all cells, in their order; those kept in ``workdir/cells.jsonl`` are not trained again.

    `progress` hears of each, kept ones first. Raises `BadInput` before anything trains, `RunBusy`
    where another process fills the same folder, `CorruptState` for a file that holds no records.
    """
    cells = {key_of(asked.config, cell): cell for cell in asked.cells()}
    with _held(workdir / "cells.jsonl") as lines:
        found = {key: record for key, record in _read(lines).items() if key in cells}
        for record in found.values():
            progress(record)
        missing = [(key, cell) for key, cell in cells.items() if key not in found]
        for key, record in _played(asked.config, missing, workdir, workers):
            _append(lines, key, record)
            found[key] = record
            progress(record)
    return [found[key] for key in cells]


@contextmanager
def _held(file: Path) -> Iterator[BinaryIO]:
    """The file of kept cells, for this process alone; the system lets go when the process dies."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = file.open("a+b")
    except OSError as error:
        raise StorageError(
            f"cannot write {file}: {error.strerror}; choose another --workdir or its rights"
        ) from None
    with lines:
        try:
            fcntl.flock(lines, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunBusy(
                f"another process fills {file.parent}; wait for it, or choose another --workdir"
            ) from None
        yield lines


def _read(lines: BinaryIO) -> dict[str, Record]:
    """Kept records by key; what was written after the last whole line is dropped."""
    lines.seek(0)
    text = lines.read()
    lines.truncate(text.rfind(b"\n") + 1)
    try:
        rows = [json.loads(line) for line in text.split(b"\n")[:-1]]
        return {row["key"]: Record(Cell(**row["cell"]), row["numbers"], row["at"]) for row in rows}
    except (ValueError, KeyError, TypeError):
        raise CorruptState(
            f"{lines.name} holds a line that is no record; move it away to start anew"
        ) from None


def _append(lines: BinaryIO, key: str, record: Record) -> None:
    row = {"key": key, "cell": asdict(record.cell), "numbers": record.numbers, "at": record.at}
    try:
        lines.write(canonical_json(row).encode() + b"\n")
        lines.flush()
        os.fsync(lines.fileno())
    except OSError as error:
        raise StorageError(
            f"cannot write {lines.name}: {error.strerror}; free space or choose another --workdir"
        ) from None


def _played(
    base: Config, missing: Sequence[tuple[str, Cell]], workdir: Path, workers: int
) -> Iterator[tuple[str, Record]]:
    """Keys and records as they are finished; data are prepared by this process alone."""
    grounds = groupby(missing, key=lambda item: (item[1].setting, item[1].seed))
    if workers < 2:
        for _, group in grounds:
            for key, cell in group:
                yield key, _record(base, cell, workdir)
        return
    for _, group in grounds:
        arena_of(base, next(iter(group))[1], workdir)
    with ProcessPoolExecutor(workers, get_context("spawn"), _start) as pool:
        waiting = {pool.submit(_record, base, cell, workdir): key for key, cell in missing}
        try:
            for done in as_completed(waiting):
                yield waiting[done], done.result()
        except BrokenProcessPool:
            raise ServiceError("a worker was killed (out of memory?); run again to go on from here") from None
        finally:
            with suppress(RuntimeError):
                pool.shutdown(cancel_futures=True)


def _record(base: Config, cell: Cell, workdir: Path) -> Record:
    ground = f"{workdir} {key_of(base, Cell(cell.setting, 'plain', 'mean', NONE, cell.seed))}"
    if ground not in _arenas:
        _arenas.clear()
        _arenas[ground] = arena_of(base, cell, workdir)
    return Record(cell, play(base, cell, _arenas[ground]), time.time())


def _start() -> None:
    """A worker computes on one thread, and ends when the process that started it is gone."""
    parent = parent_process()
    assert parent is not None, "a worker has a parent"

    def end_with_parent() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    threadpool_limits(1)
