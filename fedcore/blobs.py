"""Arrays under names: one safetensors file each, written in one move, checked when read.

Any fsspec address will do: a folder, or an object store for many machines. Never pickle.
"""

import hashlib
import json
import os
import secrets
import shutil
from pathlib import Path

import fsspec
import numpy as np
from fsspec.implementations.local import LocalFileSystem
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fedcore.errors import CorruptState, StorageError
from fedcore.types import Arrays


class Blobs:
    """Arrays by name under one fsspec address, each written in one move."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._files, self._root = fsspec.core.url_to_fs(address)

    def local_folders(self, name: str) -> list[Path]:
        """Folders below `name` if the address is on this machine, none otherwise."""
        root = Path(self._root, name)
        local = isinstance(self._files, LocalFileSystem) and root.exists()
        return [path for path in root.iterdir() if path.is_dir()] if local else []

    def empty(self) -> bool:
        """Whether nothing lies there."""
        return not self._files.exists(self._root) or not self._files.find(self._root)

    def write(self, name: str, facts: str, arrays: Arrays) -> str:
        """Store arrays with their facts; the SHA-256 of what was written."""
        content = save({key: np.ascontiguousarray(value) for key, value in arrays.items()}, {"facts": facts})
        path = f"{self._root}/{name}"
        try:
            self._files.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            if isinstance(self._files, LocalFileSystem):
                write_whole(Path(path), content)
            else:
                self._files.pipe_file(path, content)  # an object store shows an object whole or not at all
        except OSError as error:
            raise StorageError(
                f"cannot write {path}: {error.strerror or error}; free space or choose another --workdir"
            ) from None
        return hashlib.sha256(content).hexdigest()

    def find(self, name: str) -> str | None:
        """SHA-256 of a blob that is there, or None."""
        path = f"{self._root}/{name}"
        return hashlib.sha256(self._files.cat_file(path)).hexdigest() if self._files.exists(path) else None

    def read(self, name: str, sha256: str) -> tuple[str, dict[str, np.ndarray]]:
        """Facts and arrays of a blob. Raises `CorruptState` unless it has the digest."""
        path = f"{self._root}/{name}"
        try:
            content = self._files.cat_file(path)
            if hashlib.sha256(content).hexdigest() != sha256:
                raise CorruptState(f"blob {path} does not match its digest; restore it from a copy")
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            return header["__metadata__"]["facts"], load(content)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise CorruptState(f"blob {path} cannot be read ({error}); restore it from a copy") from None


def sweep(*folders: Path) -> None:
    """Remove from local `folders` what processes that are no more left half-written."""
    for folder in folders:
        for part in folder.glob(".*.part"):
            writer = part.name.split(".")[-2]
            if writer.isdigit() and not Path("/proc", writer).exists():
                shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a local file so that it is there whole or not at all, power cuts included."""
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}.{os.getpid()}.part")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
