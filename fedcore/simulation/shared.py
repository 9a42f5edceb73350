"""Memory that processes share: arrays as files in a folder of the system's shared memory, mapped by whoever needs them.

A file is written whole under another name and then moved, so a reader sees all of it or nothing. The owner holds a
lock on its folder for as long as it lives; whoever opens one next removes those whose owner is gone, so that nothing
is left behind for longer than that, not even by a process that was killed.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.data.federated import SiteData
from fedcore.errors import StorageError

SHM, PREFIX, ENOUGH = Path("/dev/shm"), "fedcore-", 2**30
PARTS = ("x_train", "y_train", "x_test", "y_test")


class SharedFolder:
    """A folder of this process for arrays; `close` removes it."""

    def __init__(self, parent: Path | None = None) -> None:
        place = parent or roomy()
        sweep(place)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        self._lock = (self.path / ".lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self) -> None:
        """Remove the folder; arrays that are still mapped stay readable."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def roomy() -> Path:
    """Where shared arrays go: the system's shared memory, or its temporary folder where that is small."""
    usable = SHM.is_dir() and os.access(SHM, os.W_OK) and shutil.disk_usage(SHM).free >= ENOUGH
    return SHM if usable else Path(tempfile.gettempdir())


def sweep(parent: Path) -> None:
    """Remove the folders below `parent` whose owner is gone."""
    for folder in parent.glob(f"{PREFIX}*"):
        try:
            with (folder / ".lock").open("r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # its owner lives, it was made this moment, or it belongs to somebody else


def write(path: Path, array: NDArray[Any]) -> Path:
    """Put `array` into the file `path`, whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    mapped = _mapped(part, array.shape, array.dtype)
    mapped[...] = array
    part.replace(path)
    return path


def empty(path: Path, rows: int, columns: int) -> NDArray[np.float32]:
    """A new float32 matrix (rows, columns) in the file `path`, writable by all who `read` it."""
    return _mapped(path, (rows, columns), np.dtype(np.float32))


def read(path: Path, shared: bool = False) -> NDArray[Any]:
    """The array in the file `path`; what is written to it stays here, unless it is `shared`."""
    mapped: NDArray[Any] = np.load(path, mmap_mode="r+" if shared else "c")
    return np.asarray(mapped)


class SharedRows:
    """Encoded rows of clients below `folder`, each encoded once by the process that needs them first.

    Called as `fedcore.local.place.Rows`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, client: str, encoding: str, encode: Callable[[], SiteData]) -> SiteData:
        """The client's rows under that encoding, mapped from memory that all processes see."""
        name = hashlib.sha256(f"{client}\n{encoding}".encode()).hexdigest()[:32]
        folder = self._folder / f"rows-{name}"
        if not folder.is_dir():
            self._fill(folder, encode())
        return SiteData(*(read(folder / f"{part}.npy") for part in PARTS))

    def _fill(self, folder: Path, data: SiteData) -> None:
        part = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        for name in PARTS:
            write(part / f"{name}.npy", getattr(data, name))
        try:
            part.rename(folder)
        except OSError:  # another process was first; its rows are the same
            shutil.rmtree(part, ignore_errors=True)


def _mapped(path: Path, shape: tuple[int, ...], kind: np.dtype[Any]) -> NDArray[Any]:
    """A new mapped array; its memory is reserved at once, so that writing to it cannot fail later."""
    try:
        mapped = np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=shape)
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        path.unlink(missing_ok=True)
        need = int(np.prod(shape)) * kind.itemsize / 1e6
        raise StorageError(
            f"no room for {need:.0f} MB of shared memory in {path.parent} ({error.strerror}); ask fewer clients a round, "
            "or use --engine serial"
        ) from None
    return np.asarray(mapped)
