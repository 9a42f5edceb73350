"""The section ``cohort.oort``: how clients are chosen by utility."""

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from fedcore.config.kinds import CLOSED, Share


@dataclass(frozen=True, config=CLOSED)
class OortConfig:
    """What ``cohort.sampling: oort`` weighs, with the paper's values.

    A share `exploration` of a cohort was never asked before; it is multiplied by `exploration_decay` each
    round down to `least_exploration`. `preferred` is the quantile of task times that no device is blamed
    for, `penalty` the exponent for slower ones. Clients within `cutoff` of the last of the best may be
    drawn, losses above the quantile `outliers` count as that, `staleness` is the bonus for long absence.
    """

    exploration: Share = 0.9
    exploration_decay: Share = 0.98
    least_exploration: Share = 0.2
    preferred: Share = 0.3
    penalty: Annotated[float, Field(ge=0)] = 2.0
    cutoff: Share = 0.95
    outliers: Share = 0.95
    staleness: Annotated[float, Field(ge=0)] = 0.1
