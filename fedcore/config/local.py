"""The section ``local``: what a client does with the model it gets."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from fedcore.config.kinds import CLOSED, Count, Positive, PositiveInt


@dataclass(frozen=True, config=CLOSED)
class LocalConfig:
    """What a client does with the model it gets: docs/algorithms.md says when to choose which algorithm.

    `algorithm` is ``sgd`` (FedAvg's client), ``fedprox``, which pulls each step back to where training
    starts by `mu`, ``fednova``, which averages progress a step, ``scaffold``, which corrects each
    gradient by what the server knows of the others', or ``feddyn``, which does so by what the client
    did before, at a pull of `alpha`. A client goes over its rows `epochs` times, or with `steps` takes
    exactly so many batches, however many rows it has, and goes on with the next ones in the next round.

    The learning rate rises for `warmup` rounds to `lr`, then stays (``constant``), falls by `decay` each
    round (``exponential``) or every `period` rounds (``step``), or along a cosine that would reach zero
    after `period` rounds (``cosine``).
    """

    algorithm: str = "sgd"
    mu: Annotated[float, Field(ge=0)] = 0.01
    alpha: Annotated[float, Field(ge=0)] = 0.1
    lr: Positive = 0.1
    decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    schedule: Literal["constant", "exponential", "step", "cosine"] = "exponential"
    period: PositiveInt = 100
    warmup: Count = 0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    epochs: Annotated[int, Field(ge=1, le=1000)] = 1
    batch_size: Annotated[int, Field(ge=1)] = 128
    steps: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
