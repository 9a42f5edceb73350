"""What a client keeps for itself: one file a round it took part in, in a folder that nobody else reads.

A round that was killed and is done again starts from the newest file older than the round, so it
ends in the same bytes. Two versions are kept, for no more is ever asked for. Beside them stands which
rounds it answered under noise of its own: no second answer may follow, not even from another process.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fedcore.blobs import sweep, write_whole
from fedcore.errors import CorruptState, StorageError
from fedcore.types import Arrays, canonical_json

ANSWERED = "answered.json"
_VERSIONS = 2


def kept_before(folder: Path, round_number: int) -> Arrays:
    """The arrays of the newest round before `round_number`; none for a client that was not asked before.

    Raises `CorruptState` for a file that cannot be read, or where only later rounds lie there: their
    journal was put back to an older copy.
    """
    versions = _versions(folder)
    older = [number for number in versions if number < round_number]
    if older:
        return _read(versions[older[-1]])
    if any(number > round_number for number in versions):
        raise CorruptState(
            f"{folder} holds what the client kept in later rounds than {round_number} alone, so the journal is an older "
            "copy; put this folder back as well, or remove it to begin anew"
        )
    return {}


def keep(folder: Path, round_number: int, arrays: Arrays) -> None:
    """Write the arrays of a round whole, then remove what no round will ask for again. Raises `StorageError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        write_whole(folder / f"r{round_number:05d}.safetensors", save(whole), mode=0o600)
        versions = _versions(folder)
        needed = [number for number in versions if number <= round_number][-_VERSIONS:]
        for number in versions.keys() - needed:
            versions[number].unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"cannot write to {folder}: {error.strerror}; free space or choose another --workdir"
        ) from None


def answered(folder: Path) -> dict[str, int]:
    """By run, the last round in which the client released anything under noise of its own, updates and evaluations apart.

    Raises `CorruptState`.
    """
    file = folder / ANSWERED
    try:
        if not file.exists():
            return {}
        return {str(run): int(number) for run, number in json.loads(file.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CorruptState(
            f"{file} cannot be read ({error}), so nobody knows which rounds the client answered; restore it from a copy"
        ) from None


def note_answered(folder: Path, rounds: Mapping[str, int]) -> None:
    """Keep what `answered` returns, whole and on the disk before this returns. Raises `StorageError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / ANSWERED, canonical_json(dict(rounds)).encode(), mode=0o600)
    except OSError as error:
        raise StorageError(
            f"cannot write to {folder}: {error.strerror}; free space or choose another --workdir"
        ) from None


def _versions(folder: Path) -> dict[int, Path]:
    """Files by their round, ascending."""
    files = sorted(folder.glob("r*.safetensors"), key=lambda file: int(file.stem[1:]))
    return {int(file.stem[1:]): file for file in files}


def _read(file: Path) -> Arrays:
    try:
        arrays: Arrays = load(file.read_bytes())
    except (OSError, SafetensorError) as error:
        raise CorruptState(f"{file} cannot be read ({error}); restore it from a copy") from None
    return arrays
