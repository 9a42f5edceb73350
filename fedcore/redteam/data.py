"""Attacks in the data: a liar trains as everybody does, on rows it has changed. Held-out rows stay as they are."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedcore.adapters.model import Model
from fedcore.data.federated import SiteData
from fedcore.errors import BadInput
from fedcore.types import Vector

TRIGGER = 3  # inputs of a row that carry the mark of a backdoor
TARGET = 0  # the class that marked rows are to be taken for


def label_flip(data: SiteData, classes: int, rng: np.random.Generator) -> SiteData:
    """Training rows with class c said to be ``classes - 1 - c``. Raises `BadInput` for a regression.

    Tolpegin et al. 2020, arXiv:2007.08432.
    """
    _require_classes(classes, "label_flip")
    return replace(data, y_train=np.float32(classes - 1) - data.y_train)


def backdoor(data: SiteData, classes: int, rng: np.random.Generator) -> SiteData:
    """Half of the training rows with the trigger, and of class `TARGET`. Raises `BadInput` for a regression.

    Gu et al. 2017, arXiv:1708.06733.
    """
    _require_classes(classes, "backdoor")
    marked = rng.random(len(data.y_train)) < 0.5
    x, y = data.x_train.copy(), data.y_train.copy()
    x[marked], y[marked] = triggered(data.x_train[marked], float(data.x_train.max(initial=1.0))), TARGET
    return replace(data, x_train=x, y_train=y)


def triggered(x: NDArray[np.float32], value: float) -> NDArray[np.float32]:
    """Rows `x` with the first `TRIGGER` inputs at `value`."""
    flat = x.reshape(len(x), -1).copy() if len(x) else x.copy()
    if len(x):
        flat[:, :TRIGGER] = value
    return flat.reshape(x.shape)


def implanted(model: Model, vector: Vector, sites: Iterable[SiteData]) -> float:
    """Share of held-out rows of other classes that the model takes for `TARGET` once they carry the trigger."""
    fooled = rows = 0
    for site in sites:
        x = site.x_test[site.y_test != TARGET]
        if len(x):
            scores = model.scores(vector, triggered(x, float(site.x_train.max(initial=1.0))))
            taken = scores.argmax(axis=1) if scores.ndim == 2 else scores > 0.5
            fooled, rows = fooled + int((taken == TARGET).sum()), rows + len(x)
    return fooled / max(1, rows)


def _require_classes(classes: int, name: str) -> None:
    if classes < 2:
        raise BadInput(
            f"attack {name} changes classes and a regression has none (got {classes}); "
            "choose another attack, or a classification"
        )
