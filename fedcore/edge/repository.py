"""The signing side of a TUF repository in a folder: read its signed state, write the next one.

Everything a device needs to see a new state is written before ``timestamp.json``, which is
replaced in one move: a crash leaves the old state. Metadata of an earlier state are never changed.
"""

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from securesystemslib.exceptions import StorageError as TufStorageError
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from fedcore.edge.files import sha256, write_atomically
from fedcore.edge.keys import ROOT, expiry, load_root, load_signer
from fedcore.errors import BundleRefused, CorruptState, StorageError

T = TypeVar("T", Timestamp, Snapshot, Targets)


@dataclass(frozen=True)
class Release:
    """One signed state: its number, when its signatures expire and were made to last, all targets."""

    number: int = 0
    targets: Mapping[str, TargetFile] = field(default_factory=dict)
    timestamp: Timestamp | None = None


class Repository:
    """The repository in `folder`, signed with the keys in `keys`."""

    def __init__(self, folder: Path, keys: Path) -> None:
        self.folder, self.keys = folder, keys
        self.root = load_root(keys / ROOT)
        if self.root.signed.is_expired():
            raise BundleRefused(
                f"{keys / ROOT} expired on {self.root.signed.expires:%Y-%m-%d}; make new keys"
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One publisher at a time; waits for the other one."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / ".lock").open("w")
        except OSError as error:
            raise StorageError(
                f"cannot write {self.folder}: {error.strerror}; choose another folder"
            ) from None
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def read(self) -> Release:
        """The present state, an empty one before the first. Raises `CorruptState` if it is not what was signed."""
        metadata = self.folder / "metadata"
        if not (metadata / "timestamp.json").exists():
            if any(metadata.glob("[2-9]*.json")) or any(metadata.glob("1[0-9]*.json")):
                raise CorruptState(
                    f"{metadata / 'timestamp.json'} is missing; restore it from a copy of the repository"
                )
            return Release()
        timestamp = self._signed("timestamp.json", Timestamp)
        snapshot = self._signed(f"{timestamp.snapshot_meta.version}.snapshot.json", Snapshot)
        targets = self._signed(f"{snapshot.meta['targets.json'].version}.targets.json", Targets)
        return Release(timestamp.version, targets.targets, timestamp)

    def read_target(self, target: TargetFile) -> bytes:
        """Verified bytes of a target of the present state."""
        path = self._place(target)
        try:
            data = path.read_bytes()
            target.verify_length_and_hashes(data)
            return data
        except (OSError, RepositoryError) as error:
            raise CorruptState(
                f"{path} is not what was signed ({error}); restore it from a copy of the repository"
            ) from None

    def holds(self, target: TargetFile) -> bool:
        """Whether the folder's copy of `target` is what was signed."""
        path = self._place(target)
        return path.exists() and sha256(path.read_bytes()) == target.hashes["sha256"]

    def write(self, release: Release, files: Mapping[str, bytes], days: float) -> Release:
        """The state after `release` with `files` added or replaced, its signatures good for `days`."""
        number, expires = release.number + 1, expiry(days)
        fresh = {path: TargetFile.from_data(path, data, ["sha256"]) for path, data in files.items()}
        self._write_files(fresh, files)
        targets = Targets(number, expires=expires, targets={**release.targets, **fresh})
        snapshot = Snapshot(
            number, expires=expires, meta={"targets.json": self._sign(targets, f"{number}.targets.json")}
        )
        timestamp = Timestamp(
            number, expires=expires, snapshot_meta=self._sign(snapshot, f"{number}.snapshot.json")
        )
        self._sign(timestamp, "timestamp.json")
        return Release(number, targets.targets, timestamp)

    def _write_files(self, targets: Mapping[str, TargetFile], files: Mapping[str, bytes]) -> None:
        root = self.folder / "metadata" / f"{self.root.signed.version}.root.json"
        data = (self.keys / ROOT).read_bytes()
        if not root.exists():
            write_atomically(root, data)
        elif root.read_bytes() != data:
            raise BundleRefused(
                f"{self.folder} belongs to other keys than {self.keys}; use its own keys or a new folder"
            )
        for path, target in targets.items():
            if not self.holds(target):
                write_atomically(self._place(target), files[path])

    def _place(self, target: TargetFile) -> Path:
        folder, _, name = target.path.rpartition("/")
        return self.folder / "targets" / folder / f"{target.hashes['sha256']}.{name}"

    def _sign(self, signed: T, name: str) -> MetaFile:
        """Write `signed` as file `name`; returns what the next role says about it."""
        metadata = Metadata(signed)
        metadata.sign(load_signer(self.keys, signed.type, self.root.signed))
        data = metadata.to_bytes()
        write_atomically(self.folder / "metadata" / name, data)
        return MetaFile.from_data(signed.version, data, ["sha256"])

    def _signed(self, name: str, kind: type[T]) -> T:
        path = self.folder / "metadata" / name
        try:
            metadata: Metadata[T] = Metadata.from_file(str(path))
            if not isinstance(metadata.signed, kind):
                raise CorruptState(f"{path} holds {metadata.signed.type} metadata; restore it")
            self.root.signed.verify_delegate(kind.type, metadata.signed_bytes, metadata.signatures)
            return metadata.signed
        except (TufStorageError, DeserializationError, RepositoryError) as error:
            raise CorruptState(
                f"{path} is not what the keys in {self.keys} signed ({error}); restore it from a copy of the repository"
            ) from None
