"""What a matrix leaves in a folder: ``robustness.csv``, ``robustness.json``, ``robustness.png``."""

import json
from collections.abc import Sequence
from pathlib import Path

from fedcore.blobs import write_whole
from fedcore.errors import MissingExtra, StorageError
from fedcore.redteam.kept import Record
from fedcore.redteam.summary import as_csv, as_json, panels


def write(records: Sequence[Record], folder: Path, title: str) -> dict[str, str]:
    """The files by kind. Raises `StorageError`, and `MissingExtra` without matplotlib."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "robustness.csv", as_csv(records).encode())
        write_whole(folder / "robustness.json", json.dumps(as_json(records), indent=1).encode())
        from fedcore.redteam.picture import draw

        picture = draw(panels(records), folder / "robustness.png", title)
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "tracking") from None
    except OSError as error:
        raise StorageError(
            f"cannot write {folder}: {error.strerror}; free space or choose another --workdir"
        ) from None
    return {
        "table": str(folder / "robustness.csv"),
        "json": str(folder / "robustness.json"),
        "picture": str(picture),
    }
