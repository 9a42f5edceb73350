"""Publish a bundle to devices, take it back, and check what is published.

A version's content never changes; a channel's pointer (``champion.json``) says which version
devices shall run. Each publication signs a new state, so that a device notices when somebody
shows it an older one, even where the version itself went back on purpose.
"""

import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tuf.api.metadata import Metadata, Targets

from fedcore.edge.client import SignedRepository
from fedcore.edge.files import sha256
from fedcore.edge.manifest import FILES, MANIFEST, check_digests, read_bundle
from fedcore.edge.pointer import CHANNEL, Pointer, bundle_path, pointer_path
from fedcore.edge.repository import Release, Repository
from fedcore.errors import BadInput, BundleRefused, StorageError

EXPIRES_DAYS = 30


@dataclass(frozen=True)
class Published:
    """What devices of `channel` get: `release` numbers the signed state, `changed` tells whether it is new."""

    channel: str
    version: int
    previous: int | None
    release: int
    expires: str
    changed: bool


@dataclass(frozen=True)
class Verified:
    """A repository that holds what it claims: every file, of every version, up to `expires`."""

    channels: dict[str, int]
    versions: tuple[int, ...]
    files: int
    bytes: int
    release: int
    expires: str


def publish(
    export_folder: Path,
    repo: Path,
    keys: Path,
    version: int,
    channel: str = CHANNEL,
    *,
    rollback: bool = False,
    expires_days: float = EXPIRES_DAYS,
) -> Published:
    """Publish the bundle of `export_folder` as `version` and point `channel` at it.

    The same version and content again changes nothing, except that signatures past half their
    life are renewed. Raises `BundleRefused` for a version that is lower than the published one
    (unless `rollback`) or has other content, or files that differ from their manifest.
    """
    if version < 1:
        raise BadInput(f"version {version} is not a positive number; give the registry's version")
    files = read_bundle(export_folder)
    check_digests(files)
    repository = Repository(repo, keys)
    with repository.locked():
        release = repository.read()
        pointer = _pointer(repository, release, channel)
        if pointer and version < pointer.version and not rollback:
            raise BundleRefused(
                f"version {version} is lower than the published {pointer.version}; to go back on purpose use: "
                f"fedcore edge rollback"
            )
        fresh = {bundle_path(version, name): data for name, data in files.items()}
        _refuse_other_content(release, version, fresh)
        return _point(repository, release, pointer, channel, version, fresh, expires_days)


def rollback(
    repo: Path,
    keys: Path,
    channel: str = CHANNEL,
    *,
    to: int | None = None,
    expires_days: float = EXPIRES_DAYS,
) -> Published:
    """Point `channel` back at the version before, or at version `to`, in a new signed state.

    Raises `BadInput` when there is no such version.
    """
    repository = Repository(repo, keys)
    with repository.locked():
        release = repository.read()
        pointer = _pointer(repository, release, channel)
        version = to if to is not None else pointer.previous if pointer else None
        known = sorted({int(path.split("/")[0]) for path in release.targets if "/" in path})
        if pointer is None or version not in known:
            raise BadInput(
                f"channel {channel!r} has no version {version or 'before'} to go back to; known: {known}"
            )
        paths = [bundle_path(version, name) for name in (*FILES, MANIFEST)]
        files = {path: repository.read_target(release.targets[path]) for path in paths}
        return _point(repository, release, pointer, channel, version, files, expires_days)


def verify(repo: str | Path, trusted_root: Path) -> Verified:
    """What `repo` (a folder or address) holds, once signatures, expiry and every file are checked.

    Raises `BundleRefused` at the first thing that does not hold.
    """
    with tempfile.TemporaryDirectory() as home:
        signed = SignedRepository(str(repo), _read_root(trusted_root), Path(home))
        targets = Metadata[Targets].from_file(str(Path(home, "targets.json"))).signed
        files = {path: signed.fetch(path) for path in sorted(targets.targets)}
    versions = sorted({int(path.split("/")[0]) for path in files if "/" in path})
    for version in versions:
        check_digests({name: files[bundle_path(version, name)] for name in (*FILES, MANIFEST)})
    pointers = [Pointer.from_bytes(data) for path, data in files.items() if "/" not in path]
    return Verified(
        channels={pointer.channel: pointer.version for pointer in pointers},
        versions=tuple(versions),
        files=len(files),
        bytes=sum(map(len, files.values())),
        release=targets.version,
        expires=targets.expires.isoformat(),
    )


def _point(
    repository: Repository,
    release: Release,
    pointer: Pointer | None,
    channel: str,
    version: int,
    files: dict[str, bytes],
    days: float,
) -> Published:
    """Sign the state in which `channel` points at `version`, unless it is the present one and still fresh."""
    manifest = sha256(files[bundle_path(version, MANIFEST)])
    new = pointer.moved_to(version, manifest) if pointer else Pointer(channel, version, manifest)
    changed = new != pointer
    if changed or _stale(release, days) or not _whole(repository, release, files):
        release = repository.write(release, {**files, pointer_path(channel): new.to_bytes()}, days)
    assert release.timestamp is not None  # written above, or there was a pointer to compare with
    expires = release.timestamp.expires.isoformat()
    return Published(channel, version, new.previous, release.number, expires, changed)


def _pointer(repository: Repository, release: Release, channel: str) -> Pointer | None:
    target = release.targets.get(pointer_path(channel))
    return Pointer.from_bytes(repository.read_target(target)) if target else None


def _refuse_other_content(release: Release, version: int, files: dict[str, bytes]) -> None:
    for path, data in files.items():
        known = release.targets.get(path)
        if known and known.hashes["sha256"] != sha256(data):
            raise BundleRefused(
                f"version {version} is already published with another {path.split('/')[1]}; publish a new version"
            )


def _stale(release: Release, days: float) -> bool:
    """Whether less than half the life of the signatures is left."""
    return release.timestamp is None or release.timestamp.is_expired(
        datetime.now(UTC) + timedelta(days=days / 2)
    )


def _whole(repository: Repository, release: Release, files: dict[str, bytes]) -> bool:
    """Whether the repository's own copies of `files` are what was signed."""
    return all(repository.holds(release.targets[path]) for path in files)


def _read_root(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(
            f"cannot read {path}: {error.strerror}; give the root.json of the keys folder"
        ) from None
