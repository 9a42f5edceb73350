"""The verifying side of a signed repository: where metadata come from, and what is wrong in a sentence.

python-tuf does the checking; a repository is a folder, an http address, or any address fsspec
knows. Whoever looks a file up here gets it verified or gets an error.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
from tuf.api import exceptions as wrong
from tuf.ngclient import FetcherInterface, TargetFile, Updater
from tuf.ngclient.urllib3_fetcher import Urllib3Fetcher

from fedcore.errors import BundleRefused, ServiceError, StorageError

CHUNK = 1 << 20
TIMEOUT_S = 10


class FileFetcher(FetcherInterface):
    """Reads a repository through fsspec: a folder, or an address such as ``s3://bucket/repo``."""

    def _fetch(self, url: str) -> Iterator[bytes]:
        filesystem, path = fsspec.core.url_to_fs(url)
        try:
            file = filesystem.open(path, "rb")
        except FileNotFoundError:
            raise wrong.DownloadHTTPError(f"{url} is not there", 404) from None
        return _chunks(file)


class SignedRepository:
    """What of `repository` is signed by the keys of `root`; `home` remembers the newest metadata seen.

    A fresh one is made for every look: it sees one consistent state. Raises `BundleRefused` when
    signatures, digests, versions or expiry do not hold, `ServiceError` when there is no answer.
    """

    def __init__(self, repository: str, root: bytes, home: Path) -> None:
        self.repository = repository
        self._home = home
        base = repository.rstrip("/")
        web = base.startswith(("http://", "https://"))
        with self._in_a_sentence():
            home.mkdir(parents=True, exist_ok=True)
            self._updater = Updater(
                str(home),
                f"{base}/metadata",
                str(home),
                f"{base}/targets",
                Urllib3Fetcher(socket_timeout=TIMEOUT_S) if web else FileFetcher(),
                bootstrap=root,
            )
            self._updater.refresh()

    def find(self, path: str) -> TargetFile | None:
        """The signed facts about the target `path`, None when it is not published."""
        with self._in_a_sentence():
            return self._updater.get_targetinfo(path)

    def fetch(self, path: str) -> bytes:
        """The verified bytes of the target `path`."""
        target = self.find(path)
        if target is None:
            raise BundleRefused(
                f"{path} is not published in {self.repository}; publish it with: fedcore edge publish"
            )
        file = self._home / f"{os.getpid()}.download"
        with self._in_a_sentence():
            try:
                self._updater.download_target(target, str(file))
                return file.read_bytes()
            finally:
                file.unlink(missing_ok=True)

    @contextmanager
    def _in_a_sentence(self) -> Iterator[None]:
        """Errors of tuf as ours: an unreachable repository is a `ServiceError`, a full disk a `StorageError`."""
        where = self.repository
        try:
            yield
        except wrong.ExpiredMetadataError as error:
            raise BundleRefused(
                f"{where} is refused: {error}; publish again to renew its signatures"
            ) from None
        except wrong.UnsignedMetadataError as error:
            raise BundleRefused(f"{where} is refused: {error}; use the root.json of its own keys") from None
        except wrong.BadVersionNumberError as error:
            raise BundleRefused(
                f"{where} is refused as rolled back: {error}; restore its newest metadata"
            ) from None
        except (wrong.LengthOrHashMismatchError, wrong.DownloadLengthMismatchError) as error:
            raise BundleRefused(f"{where} is refused as tampered: {error}; publish again") from None
        except wrong.DownloadHTTPError as error:
            raise ServiceError(
                f"{where} lacks a file ({error}); publish with: fedcore edge publish"
            ) from None
        except wrong.DownloadError as error:
            raise ServiceError(
                f"{where} cannot be reached ({error}); check the address and the network"
            ) from None
        except wrong.RepositoryError as error:
            raise BundleRefused(f"{where} is refused: {error}; publish again") from None
        except OSError as error:
            raise StorageError(
                f"cannot write {self._home}: {error.strerror}; free space or choose another home"
            ) from None


def _chunks(file: fsspec.spec.AbstractBufferedFile) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK):
            yield chunk
