"""Where a cell's training stands, kept from time to time: one that takes hours goes on where it was killed.

A folder a standing, whole or not there, under its round and digest: the state between two rounds, the
scores so far, and hard links to what the clients keep for themselves, whose files are never written twice.
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

from fedcore.asynchrony import course_from, course_tree
from fedcore.blobs import Blobs, sweep
from fedcore.convergence import Progress
from fedcore.data.raw import writing
from fedcore.errors import CorruptState
from fedcore.history import History
from fedcore.round import CONTROL, HISTORY, NOISE, OPTIMIZER, RULE, arrays_of, prefixed
from fedcore.state import State
from fedcore.types import Arrays, Json, canonical_json

_STATE, _CLIENTS = "state.safetensors", "clients"
_PARTS = {"optimizer": OPTIMIZER, "rule": RULE, "control": CONTROL, "noise": NOISE}
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
        if folder is None:
            return None
        try:
            facts, arrays = Blobs(str(folder)).read(_STATE, folder.name.partition("-")[2])
            return _standing(json.loads(facts), arrays)
        except (CorruptState, ValueError, KeyError, TypeError) as error:
            why = f"{folder} is no standing of a training ({error}); remove {self._folder} to train the cell anew"
            raise CorruptState(why) from None

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
        digest = Blobs(str(part)).write(_STATE, *_kept(standing))
        self._folder.mkdir(exist_ok=True)
        new, older = self._folder / f"r{standing.state.round:05d}-{digest}", list(self._folder.iterdir())
        if new in older:  # another process trains the same cell
            older = [part]
        else:
            part.rename(new)
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


def _kept(standing: Standing) -> tuple[str, Arrays]:
    """A standing as facts and arrays."""
    state = standing.state
    facts: dict[str, Json] = {name: getattr(state, name) for name in _NUMBERS}
    facts |= {
        "course": course_tree(state.course),
        "progress": state.progress and vars(state.progress),
        "scores": sorted(standing.scores.items()),
        "seconds": standing.seconds,
    }
    arrays = {"model": state.model, **prefixed(HISTORY, state.history.arrays())}
    for part, prefix in _PARTS.items():
        arrays |= prefixed(prefix, getattr(state, part))
    return canonical_json(facts), arrays


def _standing(facts: Json, arrays: Arrays) -> Standing:
    """The inverse of `_kept`."""
    parts: dict[str, Any] = {part: arrays_of(prefix, arrays) for part, prefix in _PARTS.items()}
    state = State(
        model=arrays["model"],
        history=History.from_arrays(arrays_of(HISTORY, arrays)),
        progress=Progress(**facts["progress"]) if facts["progress"] else None,
        course=course_from(facts["course"]),
        **parts,
        **{name: facts[name] for name in _NUMBERS},
    )
    scores = {int(number): float(score) for number, score in facts["scores"]}
    return Standing(state, scores, float(facts["seconds"]))
