"""The keys of a signed repository: one Ed25519 key a role, and the root that every device starts from.

The folder holds four private keys, readable by their owner alone, and ``root.json``, which is
public and is given to devices when they are set up. ``root.pem`` is not needed to publish:
keep it offline.
"""

import os
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.exceptions import KeyMismatchError
from securesystemslib.signer import CryptoSigner, Signer, SSlibKey
from tuf.api.metadata import Metadata, Root

from fedcore.edge.files import write_atomically
from fedcore.errors import BadInput, StorageError

ROLES = ("root", "targets", "snapshot", "timestamp")
ROOT = "root.json"
ROOT_DAYS = 3650  # devices in the field cannot be given a new root once it has expired


def make_keys(folder: Path) -> Path:
    """Fresh keys in `folder`; returns the path of ``root.json``.

    Raises `StorageError` when the folder holds anything: keys are never overwritten.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StorageError(f"{folder} is not empty and keys are never overwritten; choose a new folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))  # mode 0700
    except OSError as error:
        raise StorageError(f"cannot make {folder}: {error.strerror}; choose another folder") from None
    try:
        _write_keys(made)
        os.replace(made, folder)
    except OSError as error:
        raise StorageError(f"cannot make {folder}: {error.strerror}; choose another folder") from None
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return folder / ROOT


def load_root(path: Path) -> Metadata[Root]:
    """The root metadata in `path`. Raises `BadInput` if it is not one."""
    try:
        root: Metadata[Root] = Metadata[Root].from_bytes(path.read_bytes())
        root.signed.verify_delegate(Root.type, root.signed_bytes, root.signatures)
        return root
    except OSError as error:
        raise BadInput(
            f"cannot read {path}: {error.strerror}; make keys with: fedcore edge keys DIR"
        ) from None
    except Exception as error:  # tuf and securesystemslib share no class for what broken metadata cause
        raise BadInput(f"{path} is no root of trust ({error}); take root.json from the keys folder") from None


def load_signer(keys: Path, role: str, root: Root) -> Signer:
    """The signer for `role` from `keys`. Raises `BadInput` when its key is not the one `root` names."""
    path = keys / f"{role}.pem"
    public = root.keys[root.roles[role].keyids[0]]
    try:
        private = load_pem_private_key(path.read_bytes(), None)
        if not isinstance(public, SSlibKey):
            raise BadInput(
                f"the root names a key of type {public.keytype} for {role}; make keys with: fedcore edge keys"
            )
        return CryptoSigner(private, public)  # its other key types raise ValueError
    except OSError as error:
        raise BadInput(
            f"cannot read {path}: {error.strerror}; make keys with: fedcore edge keys DIR"
        ) from None
    except (ValueError, TypeError, KeyMismatchError, UnsupportedAlgorithm):
        raise BadInput(
            f"{path} is not the key that {keys / ROOT} names for {role}; use keys made together"
        ) from None


def expiry(days: float) -> datetime:
    """Now plus `days`, in whole seconds of UTC as TUF wants it."""
    return (datetime.now(UTC) + timedelta(days=days)).replace(microsecond=0)


def _write_keys(folder: Path) -> None:
    signers = {role: CryptoSigner.generate_ed25519() for role in ROLES}
    root = Root(expires=expiry(ROOT_DAYS), consistent_snapshot=True)
    for role, signer in signers.items():
        root.add_key(signer.public_key, role)
        write_atomically(folder / f"{role}.pem", signer.private_bytes, mode=0o600)
    metadata = Metadata(root)
    metadata.sign(signers["root"])
    write_atomically(folder / ROOT, metadata.to_bytes())
