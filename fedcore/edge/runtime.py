"""The device: trusts one root key, keeps a verified model at hand, and never lets go of a good one for a bad one.

Its home folder: ``metadata/`` (the newest signed state seen), ``versions/`` (verified bundles),
``current`` (which one to serve). A bundle is downloaded, verified, loaded and tried on its probe
rows before ``current`` moves; whatever goes wrong before leaves the old model serving.
Neither torch nor mlflow nor pandas is imported in this process.
"""

import fcntl
import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from fedcore.edge.client import SignedRepository
from fedcore.edge.files import sha256, sync_folder, write_atomically
from fedcore.edge.manifest import FILES, MANIFEST, read_bundle
from fedcore.edge.model import EdgeModel, Scores
from fedcore.edge.pointer import CHANNEL, Pointer, bundle_path, pointer_path
from fedcore.errors import BadInput, BundleRefused, FedcoreError, RunBusy, ServiceError, StorageError

MAX_ROWS = 1000


@dataclass(frozen=True)
class Health:
    """A device's report; no row and no score is in it.

    `status` is ``empty`` before the first model, ``stale`` when the last refresh failed and the
    old model goes on, else ``serving``. `sha256` is the digest of the bundle's manifest; times
    are UTC in ISO format.
    """

    status: Literal["empty", "serving", "stale"]
    version: int | None
    sha256: str | None
    name: str | None
    channel: str
    started: str
    last_refresh: str | None
    last_error: str | None
    predictions: int
    refused: int


@dataclass(frozen=True)
class _Serving:
    """The model in use; replaced as a whole, so that a request sees one version."""

    pointer: Pointer
    model: EdgeModel


class Device:
    """One device with its `home` folder, fed from `repository` (folder or address) and trusting `trusted_root`.

    On start it loads the model it served last, without a network. Raises `RunBusy` when another
    process has the home, `StorageError` when it cannot be written. `close` gives the home back.
    """

    def __init__(
        self, home: Path, repository: str | Path, trusted_root: Path, channel: str = CHANNEL
    ) -> None:
        self.home, self.repository, self.channel = home, str(repository), channel
        self._pointer_path = pointer_path(channel)
        self._root = _read_root(trusted_root)
        self._lock = _lock(home)
        self._refreshing = threading.Lock()
        self._counting = threading.Lock()
        self._serving: _Serving | None = None
        self._predictions = self._refused = 0
        self._started = _now()
        self._last_refresh: str | None = None
        self._last_error: str | None = None
        self._resume()

    def refresh(self) -> bool:
        """Take up what the channel points at; returns whether the model changed.

        Raises `BundleRefused`, `ServiceError` or `StorageError` and goes on with the old model;
        `health` reports the error until a refresh succeeds.
        """
        with self._refreshing:
            try:
                changed = self._take_up()
            except FedcoreError as error:
                self._last_error = str(error)
                raise
            except Exception as error:  # whatever a broken repository brings about, the device goes on
                refused = BundleRefused(f"{self.repository} cannot be used ({type(error).__name__}: {error})")
                self._last_error = str(refused)
                raise refused from error
            self._last_error, self._last_refresh = None, _now()
            return changed

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> tuple[Scores, int]:
        """Scores of raw rows and the version that gave them.

        Raises `BadInput` for more than 1,000 rows or a row outside the schema, `ServiceError` before the first model.
        """
        serving = self._serving
        try:
            if serving is None:
                raise ServiceError(
                    f"no model yet; publish one to {self.repository} and wait for the next refresh"
                )
            if len(rows) > MAX_ROWS:
                raise BadInput(
                    f"{len(rows)} rows are too many, at most {MAX_ROWS} at once; send them in parts"
                )
            scores = serving.model.predict(rows)
        except FedcoreError:
            with self._counting:
                self._refused += 1
            raise
        with self._counting:
            self._predictions += len(rows)
        return scores, serving.pointer.version

    def health(self) -> Health:
        """How the device is."""
        serving, error = self._serving, self._last_error
        return Health(
            status="empty" if serving is None else "stale" if error else "serving",
            version=serving.pointer.version if serving else None,
            sha256=serving.pointer.manifest if serving else None,
            name=serving.model.manifest.name if serving else None,
            channel=self.channel,
            started=self._started,
            last_refresh=self._last_refresh,
            last_error=error,
            predictions=self._predictions,
            refused=self._refused,
        )

    def close(self) -> None:
        """Give the home folder back to others."""
        self._lock.close()

    def _resume(self) -> None:
        """Load what was served before; a home that is damaged is reported and mended by the next refresh."""
        current = self.home / "current"
        if not current.exists():
            return
        try:
            pointer = Pointer.from_bytes(current.read_bytes())
            self._serving = _load(pointer, self._folder(pointer))
        except BundleRefused as error:
            self._last_error = f"the model of the last time cannot be used: {error}"

    def _take_up(self) -> bool:
        signed = SignedRepository(self.repository, self._root, self.home / "metadata")
        pointer = Pointer.from_bytes(signed.fetch(self._pointer_path))
        if self._serving and (pointer.version, pointer.manifest) == self._identity():
            return False
        folder = self._folder(pointer)
        try:
            serving = _load(pointer, folder)  # a version served before is still here
        except BundleRefused:
            serving = self._download(signed, pointer, folder)
        write_atomically(self.home / "current", pointer.to_bytes())
        before, self._serving = self._serving, serving
        self._tidy(folder, self._folder(before.pointer) if before else folder)
        return True

    def _download(self, signed: SignedRepository, pointer: Pointer, folder: Path) -> _Serving:
        """The bundle of `pointer`, verified and tried, in `folder`: whole, or not there."""
        part = folder.with_name(f"{folder.name}.part")
        try:
            shutil.rmtree(part, ignore_errors=True)
            for name in (*FILES, MANIFEST):
                write_atomically(part / name, signed.fetch(bundle_path(pointer.version, name)))
            serving = _load(pointer, part)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(part, folder)
            sync_folder(folder.parent)
            return serving
        except OSError as error:
            raise StorageError(
                f"cannot write {folder}: {error.strerror}; free space or choose another home"
            ) from None
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _tidy(self, *kept: Path) -> None:
        """Drop all versions but `kept`: the one in use and the one before it."""
        for folder in (self.home / "versions").iterdir():
            if folder not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def _identity(self) -> tuple[int, str] | None:
        return (self._serving.pointer.version, self._serving.pointer.manifest) if self._serving else None

    def _folder(self, pointer: Pointer) -> Path:
        return self.home / "versions" / f"{pointer.version}-{pointer.manifest[:16]}"


def _load(pointer: Pointer, folder: Path) -> _Serving:
    files = read_bundle(folder)
    if sha256(files[MANIFEST]) != pointer.manifest:
        raise BundleRefused(
            f"version {pointer.version} has another manifest than its channel names; publish again"
        )
    model = EdgeModel(files)
    model.self_test()
    return _Serving(pointer, model)


def _lock(home: Path) -> Any:
    """An open file that holds the home's lock; the system frees it when the process ends, however it ends."""
    try:
        (home / "versions").mkdir(parents=True, exist_ok=True)
        file = (home / ".lock").open("w")
    except OSError as error:
        raise StorageError(f"cannot use {home}: {error.strerror}; choose another home with --home") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise RunBusy(f"another process uses {home}; stop it or choose another home with --home") from None
    return file


def _read_root(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(
            f"cannot read {path}: {error.strerror}; give the root.json of the keys folder"
        ) from None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
