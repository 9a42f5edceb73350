"""The published numbers, from the one file that holds them: facts with their sources, no data."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from fedcore.tables.table import Published

FILE = Path(__file__).with_name("published.yaml")


@cache
def _everything() -> Mapping[str, Any]:
    tree: Mapping[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return tree


def source(table: str) -> str:
    """Where the numbers of `table` were published."""
    return str(_everything()[table]["source"])


def published(table: str) -> dict[tuple[str, str], Published]:
    """Mean and deviation by (row, column) of `table`."""
    return {
        (str(row), str(column)): Published(float(mean), None if deviation is None else float(deviation))
        for column, rows in _everything()[table]["columns"].items()
        for row, (mean, deviation) in rows.items()
    }
