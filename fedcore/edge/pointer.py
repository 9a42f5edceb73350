"""The small signed target that names the version of a channel which devices shall run."""

import json
import re
from dataclasses import asdict, dataclass

from fedcore.errors import BadInput, BundleRefused
from fedcore.types import canonical_json

CHANNEL = "champion"
KEPT = 50


@dataclass(frozen=True)
class Pointer:
    """`version` of `channel`, the digest of its manifest, and the versions it followed, oldest first."""

    channel: str
    version: int
    manifest: str
    history: tuple[int, ...] = ()

    @property
    def previous(self) -> int | None:
        """The version a rollback goes to."""
        return self.history[-1] if self.history else None

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return canonical_json(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Pointer":
        """What `to_bytes` wrote; raises `BundleRefused` for anything else."""
        try:
            tree = json.loads(data)
            pointer = cls(
                str(tree["channel"]), tree["version"], str(tree["manifest"]), tuple(tree["history"])
            )
            if not all(map(_is_version, (pointer.version, *pointer.history))):
                raise ValueError(f"version {pointer.version!r}")
            return pointer
        except (ValueError, KeyError, TypeError) as error:
            raise BundleRefused(f"the channel's pointer is not one ({error}); publish again") from None

    def moved_to(self, version: int, manifest: str) -> "Pointer":
        """The pointer after a move: forward remembers this version, back to a known one forgets what followed."""
        if version == self.version:
            return Pointer(self.channel, version, manifest, self.history)
        if version in self.history:
            history = self.history[: self.history.index(version)]
        else:
            history = (*self.history, self.version)[-KEPT:]
        return Pointer(self.channel, version, manifest, history)


def pointer_path(channel: str) -> str:
    """Target path of a channel's pointer. Raises `BadInput` for a name that is no plain word."""
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,49}", channel):
        raise BadInput(
            f"channel {channel!r} is not a name of small letters, digits and hyphens; choose another"
        )
    return f"{channel}.json"


def bundle_path(version: int, name: str) -> str:
    """Target path of a bundle's file."""
    return f"{version}/{name}"


def _is_version(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
