"""Where data sets that no Python package brings are looked for: ``FEDCORE_DATA``, then the system."""

import os
from pathlib import Path

from fedcore.errors import BadData


def find_folder(name: str, file: str, how: str, *others: Path) -> Path:
    """The first of ``$FEDCORE_DATA/name`` and `others` that holds `file`. Raises `BadData` saying `how` to get it."""
    root = os.environ.get("FEDCORE_DATA")
    places = [*([Path(root) / name] if root else []), *others]
    for place in places:
        if (place / file).is_file():
            return place
    looked = ", ".join(map(str, places)) or "no folder, FEDCORE_DATA is not set"
    raise BadData(
        name, f"it is not on this machine (looked in: {looked})", f"set FEDCORE_DATA to a folder and {how}"
    )
