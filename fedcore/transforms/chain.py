"""Transforms one after another are a transform."""

from typing import Any

import numpy as np

from fedcore.types import Transform, Vector


def _nothing() -> Any:
    return ()


identity = Transform(
    init=_nothing, apply=lambda update, state, rng: (update, state), bound=lambda incoming: incoming
)


def chain(*steps: Transform) -> Transform:
    """The transform that applies `steps` in order; its bound is theirs, composed."""

    def init() -> tuple[Any, ...]:
        return tuple(step.init() for step in steps)

    def apply(update: Vector, state: tuple[Any, ...], rng: np.random.Generator) -> tuple[Vector, Any]:
        after = []
        for step, inner in zip(steps, state, strict=True):
            update, passed = step.apply(update, inner, rng)
            after.append(passed)
        return update, tuple(after)

    def bound(incoming: float) -> float:
        for step in steps:
            incoming = step.bound(incoming)
        return incoming

    return Transform(init, apply, bound)
