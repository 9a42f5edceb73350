"""Where a cell's training stands, kept from time to time: one that takes hours goes on where it was killed.

A folder a standing, whole or not there: the state between two rounds, the scores so far, and hard links
to what the clients keep for themselves, whose files are never written twice.
"""

import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fedcore.asynchrony import course_from, course_tree
from fedcore.blobs import sweep, write_whole
from fedcore.convergence import Progress
from fedcore.data.raw import writing
from fedcore.errors import CorruptState
from fedcore.history import History
from fedcore.state import State
from fedcore.types import Arrays, Json, canonical_json

_STATE, _CLIENTS = "state.safetensors", "clients"
_PARTS = ("optimizer", "rule", "control", "noise")  # arrays by name that pass from round to round
_NUMBERS = ("run", "round", "model_round", "best_loss", "suspicion", "clip", "now")


class Standing(NamedTuple):
    """A training between two rounds: what the next starts from, the scores so far, the seconds it took."""

    state: State
    scores: Mapping[int, float]
    seconds: float


class Halfway:
    """The standing of one training in `folder`, written at most once in `every` seconds."""

    def __init__(self, folder: Path, every: float = 60.0) -> None:
        self._folder, self._every, self._written = folder, every, time.monotonic()

    @contextmanager
    def clients(self) -> Iterator[Path]:
        """A folder for what the clients keep, as it was at the last standing; gone afterwards. Raises `StorageError`."""
        place, last = self._beside(), self._newest()
        try:
            with writing(self._folder.parent):
                self._folder.parent.mkdir(parents=True, exist_ok=True)
                sweep(self._folder.parent)
                _linked(last / _CLIENTS, place) if last else place.mkdir()
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def last(self) -> Standing | None:
        """The last standing that was kept. Raises `CorruptState`."""
        folder = self._newest()
        return None if folder is None else _read(folder / _STATE)

    def reached(self, standing: Standing, clients: Path) -> None:
        """Keep `standing` and what lies in `clients`, unless another was kept a moment ago. Raises `StorageError`."""
        if time.monotonic() - self._written < self._every:
            return
        with writing(self._folder):
            self._keep(standing, clients)
        self._written = time.monotonic()

    def _keep(self, standing: Standing, clients: Path) -> None:
        """The new standing is there, whole, before the older ones go."""
        part = self._beside()
        part.mkdir()
        _linked(clients, part / _CLIENTS)
        write_whole(part / _STATE, _bytes(standing))
        self._folder.mkdir(exist_ok=True)
        older = list(self._folder.iterdir())
        part.rename(self._folder / f"r{standing.state.round:05d}-{secrets.token_hex(4)}")
        for folder in older:
            shutil.rmtree(folder, ignore_errors=True)

    def over(self) -> None:
        """Forget the training: it is complete."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _beside(self) -> Path:
        """A name that `sweep` clears once this process is no more."""
        return self._folder.with_name(f".{self._folder.name}-{secrets.token_hex(4)}.{os.getpid()}.part")

    def _newest(self) -> Path | None:
        return max(self._folder.iterdir(), default=None) if self._folder.is_dir() else None


def _linked(source: Path, target: Path) -> None:
    shutil.copytree(source, target, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # not every file system has hard links
        shutil.copyfile(source, target)


def _bytes(standing: Standing) -> bytes:
    state = standing.state
    facts: dict[str, Json] = {name: getattr(state, name) for name in _NUMBERS}
    facts |= {
        "course": course_tree(state.course),
        "progress": state.progress and vars(state.progress),
        "scores": sorted(standing.scores.items()),
        "seconds": standing.seconds,
    }
    arrays: dict[str, NDArray[Any]] = {"model": state.model}
    for part, held in ((part, getattr(state, part)) for part in _PARTS):
        arrays |= {f"{part}/{name}": array for name, array in held.items()}
    arrays |= {f"history/{name}": array for name, array in state.history.arrays().items()}
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return bytes(save(whole, {"facts": canonical_json(facts)}))


def _read(file: Path) -> Standing:
    try:
        content = file.read_bytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        arrays, facts = load(content), json.loads(header["__metadata__"]["facts"])
        parts: dict[str, Any] = {part: _of(part, arrays) for part in _PARTS}
        state = State(
            model=arrays["model"],
            history=History.from_arrays(_of("history", arrays)),
            progress=Progress(**facts["progress"]) if facts["progress"] else None,
            course=course_from(facts["course"]),
            **parts,
            **{name: facts[name] for name in _NUMBERS},
        )
        scores = {int(number): float(score) for number, score in facts["scores"]}
        return Standing(state, scores, float(facts["seconds"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        why = f"{file} is no standing of a training ({error}); remove {file.parent.parent} to train the cell anew"
        raise CorruptState(why) from None


def _of(part: str, arrays: Arrays) -> dict[str, NDArray[Any]]:
    before = f"{part}/"
    return {name.removeprefix(before): array for name, array in arrays.items() if name.startswith(before)}
