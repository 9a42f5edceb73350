"""The section ``evaluate``: when the model is judged, when a round is rolled back, when training stops."""

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from fedcore.config.kinds import CLOSED, Count


@dataclass(frozen=True, config=CLOSED)
class EvaluateConfig:
    """When the model is judged, and when a round is rolled back or training stops.

    A round whose loss exceeds `rollback_factor` times the best so far is rolled back. With `patience`
    above 0 training stops once `metric` has not gained more than `min_delta` in so many evaluations
    in a row, and the run's model is that of the best round; 0 never stops early.
    """

    every: Annotated[int, Field(ge=1)] = 1
    rollback_factor: Annotated[float, Field(gt=1)] = 3.0
    patience: Count = 0
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    metric: str = "loss"


def is_due(done: int, every: int, rounds: int) -> bool:
    """Whether a model is judged once `done` of `rounds` rounds are: each `every` of them (0: never), and after the last."""
    return every > 0 and (done % every == 0 or done == rounds)


def times_due(done: int, every: int, rounds: int) -> int:
    """How often a model is judged in the first `done` of `rounds` rounds."""
    return sum(is_due(number, every, rounds) for number in range(1, done + 1))
