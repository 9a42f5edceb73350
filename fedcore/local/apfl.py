"""Adaptive personalised federated learning: a mixture of the model of all and of the client's own."""

import numpy as np

from fedcore.adapters.layers import batches
from fedcore.local.work import Trained, Work
from fedcore.types import Vector


def apfl(work: Work) -> Trained:
    """Each batch moves the client's copy w of the model of all, and v, its own part of the mixture αv + (1-α)w.

    Deng, Kamani, Mahdavi 2020, arXiv:2003.13461, algorithm 1; α follows equation 10 once a round,
    where it is adaptive. w moves as local SGD does, v without momentum.
    """
    x, y, settings = work.data.x_train, work.data.y_train, work.settings
    w, v, alpha = work.start.copy(), own_part(work), share(work)
    rate, velocity, total = np.float32(settings.lr), np.zeros_like(w), 0.0
    for epoch in range(settings.epochs):
        total = 0.0
        for step, rows in enumerate(batches(len(y), settings.batch_size, work.rng)):
            mixed = mixture(v, w, alpha)
            slope = work.model.loss_and_gradient(mixed, x[rows], y[rows])[1]
            if work.options.adaptive and epoch == step == 0:
                alpha = float(np.clip(alpha - settings.lr * float(np.dot(v - w, slope)), 0.0, 1.0))
            v -= np.float32(work.options.lr or settings.lr) * (
                np.float32(alpha) * slope + np.float32(settings.weight_decay) * v
            )
            loss, gradient = work.model.loss_and_gradient(w, x[rows], y[rows])
            gradient += np.float32(settings.weight_decay) * w
            velocity = np.float32(settings.momentum) * velocity + gradient
            w -= rate * velocity
            total += loss * len(rows)
    return Trained(w - work.start, {"loss": total / len(y)}, {"model": v, "alpha": np.array([alpha])})


def mixed_model(work: Work) -> Vector:
    """The mixture with the model of all as it is now; that alone for a client that never took part."""
    return mixture(own_part(work), work.start, share(work))


def mixture(v: Vector, w: Vector, alpha: float) -> Vector:
    """αv + (1-α)w, (d,)."""
    return np.float32(alpha) * v + np.float32(1 - alpha) * w


def own_part(work: Work) -> Vector:
    """v (d,): a copy of what was kept, at first of the model of all."""
    return np.array(work.kept.get("model", work.start))


def share(work: Work) -> float:
    """α."""
    return float(work.kept["alpha"][0]) if "alpha" in work.kept else work.options.alpha
