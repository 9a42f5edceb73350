"""The section ``asynchrony``: whether the server waits for a whole cohort, and what an old update may do."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from fedcore.config.kinds import CLOSED, Count, Positive, PositiveInt


@dataclass(frozen=True, config=CLOSED)
class AsynchronyConfig:
    """Training without waiting for the slowest: a round is then one version of the model.

    ``fedbuff`` makes a version of each `buffer` updates of different clients; ``fedasync`` mixes
    each client's model in with weight `alpha`. At most `concurrency` clients train at a time (None:
    as many as the cohort). An update's staleness τ is the number of versions made since its client
    was handed the model. Its `weight` is 1 (``constant``), (1 + τ)^-`exponent` (``polynomial``), or
    1 up to `hinge_start` and 1 / (1 + `hinge_slope` (τ - `hinge_start`)) beyond (``hinge``). Above
    `max_staleness` (None: no limit) it is refused.

    `normalise` says what weighted updates are divided by: the ``buffer``, so that stale versions take
    shorter steps, or the sum of ``weights``. A client contributes at most `participations` times (None:
    no limit but one a buffer) to each `window` versions in a row.
    """

    mode: Annotated[
        Literal["off", "fedasync", "fedbuff"], BeforeValidator(lambda v: "off" if v is False else v)
    ] = "off"  # YAML 1.1 reads a bare off as false
    buffer: PositiveInt = 10
    concurrency: PositiveInt | None = None
    weight: Literal["constant", "polynomial", "hinge"] = "polynomial"
    exponent: Annotated[float, Field(ge=0)] = 0.5
    hinge_start: Count = 4
    hinge_slope: Positive = 10.0
    max_staleness: Count | None = 20
    alpha: Annotated[float, Field(gt=0, le=1)] = 0.6
    normalise: Literal["buffer", "weights"] = "buffer"
    participations: PositiveInt | None = None
    window: PositiveInt = 10
