"""Published tables, run again: ours beside theirs, cell by cell, over seeds.

`table` says what a table is, `published` reads the numbers, `settings` holds every table's own settings, `training`
trains a cell through the round itself, `kept` keeps finished cells, `summary` compares, the rest shows.
"""

from fedcore.tables.kept import Asked, Done, fill
from fedcore.tables.picture import draw
from fedcore.tables.settings import TABLES, named
from fedcore.tables.summary import Line, as_markdown, lines
from fedcore.tables.table import Cell, Table
from fedcore.tables.training import Where

__all__ = [
    "TABLES",
    "Asked",
    "Cell",
    "Done",
    "Line",
    "Table",
    "Where",
    "as_markdown",
    "draw",
    "fill",
    "lines",
    "named",
]
