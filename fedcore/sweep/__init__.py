"""How good a model is at each ε: cells of a sweep, their accounts, the table, the picture, DVC's queue."""

from fedcore.sweep.cells import Asked, Cell, Done, cell_config, fill
from fedcore.sweep.noise import noise_for
from fedcore.sweep.picture import draw
from fedcore.sweep.queue import enqueue
from fedcore.sweep.summary import Row, rows

__all__ = ["Asked", "Cell", "Done", "Row", "cell_config", "draw", "enqueue", "fill", "noise_for", "rows"]
