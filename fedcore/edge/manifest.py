"""What a bundle claims about itself: digests of its files, its metrics, and probe rows with their scores.

A device checks every claim before it serves. The version is not here: it belongs to the
publication, and the signed metadata hold it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedcore.edge.files import sha256
from fedcore.errors import BundleRefused

MODEL, FEATURES, SCHEMA, MANIFEST = "model.onnx", "features.json", "schema.json", "manifest.json"
FILES = (MODEL, FEATURES, SCHEMA)
FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """Claims of one bundle.

    `sha256` has one entry for each of `FILES`. `probe_rows` are made up from the schema, never
    taken from anyone's data; `probe_scores` are what the trained model answers to them, and a
    device must agree within `tolerance`. `source_sha256` names the parameters it was made from.
    """

    name: str
    task: str
    classes: tuple[str, ...]
    sha256: Mapping[str, str]
    source_sha256: str
    metrics: Mapping[str, float]
    tolerance: float
    probe_rows: tuple[Mapping[str, Any], ...]
    probe_scores: tuple[Any, ...]
    fedcore: str
    format: int = FORMAT

    def to_json(self) -> str:
        """JSON text, the same for equal manifests."""
        return json.dumps(asdict(self), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "Manifest":
        """The manifest that `to_json` wrote; raises `BundleRefused` if it is not one this version knows."""
        try:
            tree = json.loads(text)
            if tree["format"] != FORMAT:
                raise BundleRefused(
                    f"the bundle has format {tree['format']!r}, this device knows {FORMAT}; update fedcore"
                )
            for key in ("classes", "probe_rows", "probe_scores"):
                tree[key] = tuple(tree[key])
            return cls(**tree)
        except (ValueError, KeyError, TypeError) as error:
            raise BundleRefused(f"{MANIFEST} is not a manifest ({error}); export the model again") from None


def read_bundle(folder: Path) -> dict[str, bytes]:
    """Bytes of a bundle's files by name. Raises `BundleRefused` naming a file that is missing."""
    try:
        return {name: (folder / name).read_bytes() for name in (*FILES, MANIFEST)}
    except OSError as error:
        raise BundleRefused(
            f"cannot read {error.filename}: {error.strerror}; export the model again"
        ) from None


def check_digests(files: Mapping[str, bytes]) -> Manifest:
    """The manifest, once every file has the digest it claims, else `BundleRefused`."""
    manifest = Manifest.from_json(files[MANIFEST])
    for name in FILES:
        claimed, seen = manifest.sha256.get(name), sha256(files[name])
        if claimed != seen:
            raise BundleRefused(
                f"{name} has sha256 {seen[:12]}…, its manifest says {str(claimed)[:12]}…; export again"
            )
    return manifest
