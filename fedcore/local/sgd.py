"""Local SGD: train from the server's model, send back the difference.

All clients of this table are that: FedProx adds a pull to where training starts, SCAFFOLD and FedDyn
a correction of each gradient, which the server sends with the task. What the server does for them is
in `control.py`.
"""

from collections.abc import Callable, Mapping
from math import ceil

import numpy as np

from fedcore.adapters.model import Model, Training
from fedcore.config import LocalConfig
from fedcore.data.federated import SiteData
from fedcore.errors import UnknownName
from fedcore.local.schedule import learning_rate
from fedcore.types import Vector

Algorithm = Callable[
    [Model, Vector, SiteData, Training, np.random.Generator], tuple[Vector, Mapping[str, float]]
]


def sgd(
    model: Model, start: Vector, data: SiteData, settings: Training, rng: np.random.Generator
) -> tuple[Vector, Mapping[str, float]]:
    """The update (d,), trained minus start, and the mean loss of the last epoch.

    FedAvg's ClientUpdate: McMahan et al. 2017, arXiv:1602.05629, algorithm 1.
    """
    trained, facts = model.train(start, data.x_train, data.y_train, settings, rng)
    return trained - start, facts


def training(
    config: LocalConfig, round_number: int, correction: Vector | None = None, batch_size: int | None = None
) -> Training:
    """The settings of one round, its rate that of ``local.schedule``; `batch_size` None is that of `config`."""
    return Training(
        lr=learning_rate(config, round_number),
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        epochs=config.epochs,
        batch_size=batch_size or config.batch_size,
        correction=correction,
        steps=config.steps,
        proximal=PULLS[config.algorithm](config) if config.algorithm in PULLS else 0.0,
    )


def steps_taken(config: LocalConfig, rows: int) -> int:
    """How many batches a client with so many training rows takes in a round."""
    return config.steps or config.epochs * ceil(rows / config.batch_size)


def rows_trained(config: LocalConfig, rows: int, batch_size: int) -> int:
    """How many rows a client with so many training rows goes through in a round, each epoch counted."""
    if config.steps is None:
        return config.epochs * rows
    whole, rest = divmod(config.steps, ceil(rows / batch_size))
    return whole * rows + min(rest * batch_size, rows)


# How strongly an algorithm pulls each step to where training starts: FedProx by μ/2 · ‖w − start‖² in
# the loss (Li et al. 2020, arXiv:1812.06127, equation 2), FedDyn by α/2 of it.
PULLS: Mapping[str, Callable[[LocalConfig], float]] = {
    "fedprox": lambda config: config.mu,
    "feddyn": lambda config: config.alpha,
}

ALGORITHMS: Mapping[str, Algorithm] = dict.fromkeys(("sgd", "fedprox", "fednova", "scaffold", "feddyn"), sgd)


def algorithm(name: str) -> Algorithm:
    """The local algorithm of that name. Raises `UnknownName`."""
    if name not in ALGORITHMS:
        raise UnknownName("local algorithm", name, ALGORITHMS)
    return ALGORITHMS[name]
