"""A sweep's cells as rows: mean and deviation over seeds at each ε, and the loss against no privacy."""

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from fedcore.sweep.cells import Done


class Row(NamedTuple):
    """One ε (None: no privacy): what was spent at most, the score's mean and deviation, the loss in points of 100.

    `loss` compares the seeds that both have; it is None without such.
    """

    epsilon: float | None
    noise: float | None
    spent: float | None
    mean: float
    deviation: float
    loss: float | None
    seeds: int


def rows(found: Sequence[Done]) -> list[Row]:
    """A row for each ε with a score, no privacy first, then by ε."""
    plain = {
        done.cell.seed: done.score for done in found if done.cell.epsilon is None and done.score is not None
    }
    targets = sorted({d.cell.epsilon for d in found if d.cell.epsilon is not None and d.score is not None})
    shown = (
        [_row(None, [d for d in found if d.cell.epsilon is None and d.score is not None], {})]
        if plain
        else []
    )
    return shown + [
        _row(target, [d for d in found if d.cell.epsilon == target and d.score is not None], plain)
        for target in targets
    ]


def _row(target: float | None, cells: Sequence[Done], plain: dict[int, float]) -> Row:
    scores = [done.score for done in cells if done.score is not None]
    losses = [
        100 * (plain[d.cell.seed] - d.score) for d in cells if d.score is not None and d.cell.seed in plain
    ]
    return Row(
        epsilon=target,
        noise=cells[0].cell.noise,
        spent=max((done.spent for done in cells if done.spent is not None), default=None),
        mean=fmean(scores),
        deviation=stdev(scores) if len(scores) > 1 else 0.0,
        loss=fmean(losses) if losses else None,
        seeds=len(scores),
    )
