"""Asynchronous SGD: rank 0 holds the parameters, the others compute gradients and wait for nobody.

A gradient is applied the moment it arrives, at whatever version the parameters then are: how many
versions it is behind is its staleness, which is recorded. Dean et al. 2012, "Large scale
distributed deep networks" (Downpour SGD), with one server and the step as the unit.

One thread takes one message after another, so that there is one writer; each step makes a new
vector, so that a reader's is never changed under it.
"""

from collections import Counter

import numpy as np
import torch

from fedcore.errors import BadInput
from fedcore.parallel.job import Job, descend, diverged
from fedcore.parallel.sync import Progress, Trained
from fedcore.parallel.world import World

OVER, DIVERGED = -1, -2  # in place of the next step's number


def train_async(job: Job, world: World, progress: Progress) -> Trained:
    """Train all epochs; every rank gets the same. With one worker it is sequential SGD, bit for bit.

    With more, the order in which gradients arrive is not repeatable, and neither are the bytes. Raises
    `BadInput` in a world of one, and where the loss is no number any more; `PeerLost`.
    """
    if world.size < 2:
        raise BadInput(
            "asynchronous SGD needs a server and at least one worker, got 1 process; start 2 or more with "
            "torchrun --nproc-per-node"
        )
    trained = serve(job, world, progress) if world.rank == 0 else work(job, world)
    vector = torch.from_numpy(trained.vector)
    world.from_first(vector)
    return Trained(vector.numpy(), trained.losses, trained.steps, trained.staleness)


def serve(job: Job, world: World, progress: Progress) -> Trained:
    """Hand out the steps in order and apply each gradient as it comes."""
    vector = job.start()
    velocity, staleness, losses = np.zeros_like(vector), Counter[int](), list[float]()
    header, body = torch.zeros(3, dtype=torch.int64), torch.zeros(len(vector) + 1)
    an_epoch, workers, total = len(job.steps(0)), world.size - 1, 0.0
    steps = an_epoch * job.settings.epochs
    for applied in range(steps):
        source = world.receive(header)
        world.receive(body, source)
        version, _, rows = header.tolist()
        gradient, loss = body[:-1].numpy().copy(), float(body[-1])
        if not np.isfinite(loss):
            _end_all(world, header, body, source, min(workers, steps - applied))
            raise diverged(applied // an_epoch + 1, loss, job.settings.lr)
        staleness[applied - version] += 1
        vector, velocity = descend(vector, velocity, gradient, job.settings)
        handed = applied + workers
        world.send(torch.tensor([applied + 1, handed if handed < steps else OVER, 0]), source)
        world.send(torch.from_numpy(vector), source)
        total += loss * rows
        if (applied + 1) % an_epoch == 0:
            losses.append(total / len(job.data.y_train))
            total = 0.0
            progress(len(losses), losses[-1])
    return Trained(vector, tuple(losses), steps, dict(sorted(staleness.items())))


def work(job: Job, world: World) -> Trained:
    """Compute the gradient of one step after another, each at the parameters the server sent last."""
    vector, an_epoch = job.start(), len(job.steps(0))
    steps, step, version = an_epoch * job.settings.epochs, world.rank - 1, 0
    epoch, rows = -1, job.steps(0)
    header, latest = torch.zeros(3, dtype=torch.int64), torch.zeros(len(vector))
    step = step if step < steps else OVER
    while step != OVER:
        if step // an_epoch != epoch:
            epoch = step // an_epoch
            rows = job.steps(epoch)
        own = rows[step % an_epoch]
        loss, gradient = job.gradient(vector, own)
        world.send(torch.tensor([version, step, len(own)]), 0)
        world.send(torch.from_numpy(np.append(gradient, np.float32(loss))), 0)
        world.receive(header, 0)
        version, step, _ = header.tolist()
        if step == DIVERGED:
            raise diverged(epoch + 1, float("nan"), job.settings.lr)
        world.receive(latest, 0)
        vector = latest.numpy().copy()
    return Trained(vector, (), steps)


def _end_all(world: World, header: torch.Tensor, body: torch.Tensor, source: int, workers: int) -> None:
    """Tell the worker at `source`, and each other one as it comes with its gradient, that training is over."""
    for told in range(workers):
        if told:
            source = world.receive(header)
            world.receive(body, source)
        world.send(torch.tensor([0, DIVERGED, 0]), source)
