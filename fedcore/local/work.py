"""What a personal algorithm is given, and the plain steps of SGD that several of them take."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedcore.adapters.layers import batches
from fedcore.adapters.model import Model, Training
from fedcore.config.personal import PersonalConfig
from fedcore.data.federated import SiteData
from fedcore.local.sgd import Algorithm
from fedcore.types import Arrays, Vector


@dataclass(frozen=True)
class Work:
    """One round of one client.

    `start` (d,) is the model of all, `kept` what the client kept when it last took part (nothing at
    first), `base` the local algorithm of FedAvg and its kin, `rng` what that draws from, `own` what
    the client's own training draws from. `private` is there where only private steps may shape what
    leaves: the update (d,) of DP-SGD from a start (d,), once a round.
    """

    model: Model
    start: Vector
    kept: Arrays
    data: SiteData
    settings: Training
    options: PersonalConfig
    base: Algorithm
    rng: np.random.Generator
    own: np.random.Generator
    private: Callable[[Vector, Training], Vector] | None = None


class Trained(NamedTuple):
    """What a round leaves: the update (d,) that is sent, facts about it, and what the client keeps."""

    update: Vector
    facts: Mapping[str, float]
    kept: Arrays


Train: TypeAlias = Callable[[Work], Trained]
Personalise: TypeAlias = Callable[[Work], Vector]  # -> the client's own model (d,)


def stream(rows: int, size: int, rng: np.random.Generator) -> Iterator[NDArray[np.intp]]:
    """Batches of row numbers without end, one shuffled epoch after another."""
    while True:
        yield from batches(rows, size, rng)


def adapted(work: Work) -> Vector:
    """The model of all after `finetune_steps` steps of SGD on the client's training rows."""
    options = work.options
    return descend(work, options.finetune_steps, options.inner_lr)[0]


def descend(work: Work, steps: int, rate: float) -> tuple[Vector, float]:
    """The model of all (d,) after `steps` plain steps of SGD at `rate`, and their mean loss. A mask is kept."""
    x, y, vector = work.data.x_train, work.data.y_train, work.start.copy()
    chosen, losses = stream(len(y), work.settings.batch_size, work.own), []
    for _ in range(steps):
        rows = next(chosen)
        loss, gradient = work.model.loss_and_gradient(vector, x[rows], y[rows])
        mask = 1 if work.settings.mask is None else work.settings.mask
        vector -= np.float32(rate) * gradient * mask
        losses.append(loss)
    return vector, float(np.mean(losses)) if losses else 0.0
