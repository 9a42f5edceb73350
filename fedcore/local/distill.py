"""Knowledge distillation: a small model learns what a large one says of each row, and not only the row's label.

Hinton, Vinyals, Dean 2015, arXiv:1503.02531. The teacher is asked once; the student may be of any
framework whose models give their outputs with the way back to a gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedcore.adapters.layers import epochs
from fedcore.adapters.model import Model, ModelSpec, Training
from fedcore.errors import Diverged
from fedcore.types import Vector

Rows = NDArray[np.float32]
_TINY = 1e-7


class Student(Model, Protocol):
    """A model that can be taught by more than labels."""

    def pullback(self, vector: Vector, x: Rows) -> tuple[Rows, Callable[[Rows], Vector]]:
        """Logits or scaled values (n, outputs), and what makes the gradient (d,) of one at them (n, outputs)."""
        ...


@dataclass(frozen=True)
class Lesson:
    """How the student is taught: the `temperature` that softens both models' classes (a regression has none to
    soften), and the share from 0 to 1 that true labels have in the loss beside what the teacher says.
    """

    temperature: float = 4.0
    label_weight: float = 0.5


def distilled(
    student: Student,
    start: Vector,
    rows: tuple[Rows, Rows],
    taught: Rows,
    settings: Training,
    lesson: Lesson,
    rng: np.random.Generator,
    progress: Callable[[], None] = lambda: None,
) -> Vector:
    """The student's parameters (d,) after SGD from `start` on `rows` (x, y).

    `taught` are the teacher's scores of the rows, as `Model.scores` gives them. `progress` is called
    after each epoch. Raises `Diverged`.
    """
    x, y = rows
    vector, velocity = start.copy(), np.zeros_like(start)
    for epoch in epochs(len(x), settings, rng):
        with np.errstate(all="ignore"):  # numbers that are not finite are found below
            for batch in epoch:
                out, pull = student.pullback(vector, x[batch])
                gradient = pull(slope(out, y[batch], taught[batch], student.spec, lesson))
                gradient += np.float32(settings.weight_decay) * vector
                velocity = np.float32(settings.momentum) * velocity + gradient
                vector = vector - np.float32(settings.lr) * velocity
        progress()
    if not np.isfinite(vector).all():
        raise Diverged("the student is not finite", "lower --lr")
    return vector


def slope(out: Rows, y: Rows, taught: Rows, spec: ModelSpec, lesson: Lesson) -> Rows:
    """The gradient (n, outputs) of the mean loss at the student's outputs `out`.

    The loss of a row is w · (cross-entropy with its label) + (1 - w) · T² · (cross-entropy of both
    models' classes softened by T): T² keeps the two parts in proportion (section 2.1). For a
    regression both parts are squared errors, and there is no T.
    """
    if spec.task == "regression":
        to_label, to_teacher = out - _scaled(y, spec), out - _scaled(taught, spec)
        label, soft = 2 * to_label, 2 * to_teacher
    else:
        hard = _chances(out, 1.0) - _one_hot(y, spec)
        softened = _chances(_logits(taught, spec), lesson.temperature)
        label, soft = hard, lesson.temperature * (_chances(out, lesson.temperature) - softened)
    mixed = lesson.label_weight * label + (1 - lesson.label_weight) * soft
    found: Rows = (mixed / len(out)).astype(np.float32)
    return found


def _scaled(values: Rows, spec: ModelSpec) -> Rows:
    center, scale = spec.target
    return (values[:, None] - np.float32(center)) / np.float32(scale)


def _one_hot(y: Rows, spec: ModelSpec) -> Rows:
    if spec.outputs == 1:
        return y[:, None]
    hot = np.zeros((len(y), spec.outputs), np.float32)
    hot[np.arange(len(y)), y.astype(np.int64)] = 1
    return hot


def _logits(scores: Rows, spec: ModelSpec) -> Rows:
    """What the teacher's probabilities came from, up to a constant that no softmax sees."""
    p = np.clip(scores, _TINY, 1 - _TINY)
    return np.log(p / (1 - p))[:, None] if spec.outputs == 1 else np.log(p)


def _chances(out: Rows, temperature: float) -> Rows:
    """Probabilities of outputs softened by the temperature: a sigmoid of one output, else a softmax."""
    z = out / np.float32(temperature)
    if z.shape[1] == 1:
        z = np.hstack([z, np.zeros_like(z)])
    found: Rows = np.exp(z - z.max(axis=1, keepdims=True))
    found /= found.sum(axis=1, keepdims=True)
    return found[:, :1] if out.shape[1] == 1 else found
