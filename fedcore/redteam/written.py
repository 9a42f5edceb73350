"""A report of an attack in a folder: its numbers, its text and its picture, each written whole."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fedcore.blobs import write_whole
from fedcore.errors import MissingExtra, StorageError
from fedcore.types import Json

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_report(
    folder: Path, name: str, facts: Json, text: str, draw: Callable[[], "Figure"]
) -> dict[str, str]:
    """The files by kind: ``NAME.json``, ``NAME.md``, ``NAME.png``.

    Raises `StorageError`, and `MissingExtra` without matplotlib.
    """
    buffer = io.BytesIO()
    try:
        draw().savefig(buffer, format="png")
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "tracking") from None
    contents = {
        "json": (json.dumps(facts, indent=1, ensure_ascii=False) + "\n").encode(),
        "report": text.encode(),
        "picture": buffer.getvalue(),
    }
    endings = {"json": "json", "report": "md", "picture": "png"}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for kind, content in contents.items():
            write_whole(folder / f"{name}.{endings[kind]}", content)
    except OSError as error:
        raise StorageError(
            f"cannot write {folder}: {error.strerror}; free space or choose another --workdir"
        ) from None
    return {kind: str(folder / f"{name}.{ending}") for kind, ending in endings.items()}


def copied(source: Path, target: Path) -> str:
    """The file `target`, made like `source`. Raises `StorageError`."""
    try:
        write_whole(target, source.read_bytes())
    except OSError as error:
        raise StorageError(
            f"cannot write {target}: {error.strerror}; name a file in a folder that exists"
        ) from None
    return str(target)
