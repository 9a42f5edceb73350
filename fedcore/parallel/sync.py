"""Synchronous data-parallel SGD: each step's rows are shared out, the gradients added up, every rank takes the step.

It is SGD on the union: the step's gradient is the mean over all its rows, whatever the number of
ranks. Between ranks counts only the order of additions, so that models of different worlds agree
within rounding, and all ranks of one world hold the same bytes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import torch

from fedcore.errors import BadInput, FedcoreError
from fedcore.parallel.job import Job, descend, diverged, share
from fedcore.parallel.kept import Epochs, Kept
from fedcore.parallel.world import World
from fedcore.types import Vector

Reduce: TypeAlias = Callable[[torch.Tensor, World], None]
REFUSED = -1  # in place of the number of epochs that rank 0 kept
Progress: TypeAlias = Callable[[int, float], None]  # complete epochs, mean loss of the last


@dataclass(frozen=True)
class Trained:
    """What a training leaves: parameters (d,), each epoch's mean loss, and how stale the gradients were.

    `staleness` maps how many steps others had taken since a gradient's model was read to how often that
    was so: all at 0 where training is synchronous.
    """

    vector: Vector
    losses: tuple[float, ...]
    steps: int
    staleness: dict[int, int] = field(default_factory=dict)


def train_sync(job: Job, world: World, reduce: Reduce, kept: Kept | None, progress: Progress) -> Trained:
    """Train all epochs, from the last one that was kept; the same bytes at all ranks, and after a resume.

    `kept` is where rank 0 keeps epochs (None: nowhere): a training of more epochs goes on from one of
    fewer, and one that has more already stays as it is. Raises `BadInput` where the loss is no number any
    more, or where ranks hold different models; `PeerLost`.
    """
    epochs = _agreed(job, world, kept)
    for epoch in range(len(epochs.losses), job.settings.epochs):
        epochs = _epoch(job, world, reduce, epochs)
        world.agree_on_vector(epochs.vector)
        if kept and world.rank == 0:
            kept.keep(epochs)
        progress(epoch + 1, epochs.losses[-1])
    steps = len(job.steps(0)) * len(epochs.losses)
    return Trained(epochs.vector, epochs.losses, steps, {0: steps})


def _epoch(job: Job, world: World, reduce: Reduce, before: Epochs) -> Epochs:
    """One more epoch."""
    vector, velocity, number, total = before.vector, before.velocity, len(before.losses), 0.0
    for rows in job.steps(number):
        loss, gradient = _step(job, world, reduce, vector, rows)
        if not np.isfinite(loss):
            raise diverged(number + 1, loss, job.settings.lr)
        vector, velocity = descend(vector, velocity, gradient, job.settings)
        total += loss * len(rows)
    return Epochs(vector, velocity, (*before.losses, total / len(job.data.y_train)))


def _step(job: Job, world: World, reduce: Reduce, vector: Vector, rows: np.ndarray) -> tuple[float, Vector]:
    """Mean loss and gradient over `rows`, of which this rank computes its share: one sum over all ranks for both."""
    mine = share(rows, world.rank, world.size)
    loss, gradient = job.gradient(vector, mine)
    weighted = np.append(gradient, np.float32(loss)) * np.float32(len(mine) / len(rows))
    total = torch.from_numpy(weighted).to(world.device)
    reduce(total, world)
    summed: Vector = total.cpu().numpy()
    return float(summed[-1]), summed[:-1]


def _agreed(job: Job, world: World, kept: Kept | None) -> Epochs:
    """Where training starts at every rank: what rank 0 kept, or the beginning."""
    start = job.start()
    epochs = Epochs(start, np.zeros_like(start), ())
    try:
        epochs = (kept.latest() if kept and world.rank == 0 else None) or epochs
    except FedcoreError:
        world.from_first(torch.tensor([REFUSED]))
        raise
    done = torch.tensor([len(epochs.losses)])
    world.from_first(done)
    if int(done) == REFUSED:
        raise BadInput("rank 0 cannot go on from what it kept, and says why; mend that and start again")
    losses = torch.zeros(int(done), dtype=torch.float64)
    if world.rank == 0:
        losses[:] = torch.tensor(epochs.losses, dtype=torch.float64)
    both = torch.from_numpy(np.stack([epochs.vector, epochs.velocity]))
    world.from_first(losses)
    world.from_first(both)
    vector, velocity = both.numpy()
    return Epochs(vector, velocity, tuple(losses.tolist()))
