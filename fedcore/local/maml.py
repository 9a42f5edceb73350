"""A model that adapts in a few steps: Per-FedAvg and Reptile. Clients keep nothing; each adapts when it needs to."""

import numpy as np

from fedcore.local.work import Trained, Work, descend, stream
from fedcore.types import Vector

Rows = np.ndarray
_REACH = 1e-3  # length of the step over which the second derivative is a difference of gradients


def per_fedavg(work: Work) -> Trained:
    """Each step is taken where a step of adaptation on one batch leads, by the gradient on another.

    w ← w - β(g - α·H·g), g the gradient on the second batch at w - α∇f(w) on the first, H the second
    derivative at w on a third, without which (``first_order``) the step is w ← w - βg. As many batches as local training
    has. Fallah, Mokhtari, Ozdaglar 2020, arXiv:2002.07948, algorithm 1, and its FO and HF variants.
    """
    settings, options, vector = work.settings, work.options, work.start.copy()
    free = options.meta == "hessian_free"
    chosen = stream(len(work.data.y_train), settings.batch_size, work.rng)
    taken = settings.epochs * -(-len(work.data.y_train) // settings.batch_size)
    losses = []
    for _ in range(max(1, taken // (3 if free else 2))):
        at = vector - np.float32(options.inner_lr) * _slope(work, vector, next(chosen))[1]
        loss, gradient = _slope(work, at, next(chosen))
        if free:
            gradient -= np.float32(options.inner_lr) * _curved(work, vector, gradient, next(chosen))
        vector -= np.float32(settings.lr) * (gradient + np.float32(settings.weight_decay) * vector)
        losses.append(loss)
    return Trained(vector - work.start, {"loss": float(np.mean(losses))}, {})


def reptile(work: Work) -> Trained:
    """The way that `finetune_steps` steps of SGD go; the server goes ``server.lr`` of it.

    Nichol, Achiam, Schulman 2018, arXiv:1803.02999, algorithm 2.
    """
    adapted, loss = descend(work, work.options.finetune_steps, work.options.inner_lr)
    return Trained(adapted - work.start, {"loss": loss}, {})


def _curved(work: Work, vector: Vector, direction: Vector, rows: Rows) -> Vector:
    """The second derivative at `vector` times `direction` (d,), by a central difference of gradients."""
    reach = np.float32(_REACH / max(float(np.linalg.norm(direction)), 1e-12))
    ahead = _slope(work, vector + reach * direction, rows)[1]
    behind = _slope(work, vector - reach * direction, rows)[1]
    return (ahead - behind) / (2 * reach)


def _slope(work: Work, vector: Vector, rows: Rows) -> tuple[float, Vector]:
    return work.model.loss_and_gradient(vector, work.data.x_train[rows], work.data.y_train[rows])
