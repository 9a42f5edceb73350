"""The section ``privacy``: the unit, where noise is added and which, and the budget it is paid from."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from fedcore.config.kinds import CLOSED, Name, Positive, PositiveInt


@dataclass(frozen=True, config=CLOSED)
class PrivacyConfig:
    """Differential privacy: whose (`unit`), who adds the noise (`mode`) and which (`mechanism`).

    ``central``: the server clips each update again and adds noise to the sum. ``local``: each
    client adds it to its own update. ``record``: each client trains by DP-SGD, a record of a silo
    is the unit, and `clip` is of one record's gradient. `noise_multiplier` is the noise's standard
    deviation over `clip` (``laplace``: its scale over `clip`, an L1 norm). ``tree`` and ``banded``
    correlate the noise of the rounds and claim no amplification; a client takes part at most once
    in `bands` rounds there.

    `record_rate` is the chance with which each step of DP-SGD takes a record, the same in all silos,
    so that none pays more than another; None: ``local.batch_size`` over the silo's rows, with which
    the smallest silo decides what all pay.

    ``adaptive`` clipping starts at `clip` and follows the `quantile` of the norms with rate
    `clip_lr`; `count_noise` is the standard deviation of the noise on its count (None: a twentieth
    of the expected cohort).

    `epsilon` is the budget of `population` at `delta`. `noise` is ``system`` (never repeatable)
    or, for simulations that must end in the same bytes, ``seeded``. A plan of client-level
    privacy whose noise on the mean would be longer than `max_noise_ratio` clips is refused: at three
    an easy task lost three points of accuracy.

    `evaluation` says how the clients' metrics leave them: in the ``clear``, ``noised`` or not at all
    (``off``). Noised ones are sums with Gaussian noise of `evaluation_noise` times what one unit can move
    them by, charged with the round; a loss counts up to `evaluation_clip`: see `fedcore.local.shares`.
    """

    mode: Literal["none", "central", "local", "record"] = "none"
    unit: Literal["client", "record"] = "client"
    mechanism: Literal["gaussian", "discrete_gaussian", "laplace", "skellam", "tree", "banded"] = "gaussian"
    clip: Positive = 1.0
    clipping: Literal["flat", "adaptive"] = "flat"
    quantile: Annotated[float, Field(gt=0, lt=1)] = 0.5
    clip_lr: Positive = 0.2
    count_noise: Positive | None = None
    noise_multiplier: Positive = 1.0
    bands: PositiveInt = 1
    record_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    epsilon: Positive = 8.0
    population: Name | None = None
    noise: Literal["system", "seeded"] = "system"
    max_noise_ratio: Positive = 3.0
    evaluation: Annotated[
        Literal["clear", "noised", "off"], BeforeValidator(lambda v: "off" if v is False else v)
    ] = "clear"  # YAML 1.1 reads a bare off as false
    evaluation_noise: Positive = 20.0
    evaluation_clip: Positive = 4.0
