"""Evaluation under noise: what one client or one row adds to sums that are released noisy, and what these tell.

Each metric lies between 0 and a limit. A unit adds its metric over the limit, less a half, to one sum,
and a half to a sum that counts units: between -1/2 and 1/2 each, so that who is missing weighs nothing,
and a mean is 1/2 plus one noisy sum over twice the other. Where the unit is a record, and there are two
classes, each row also adds one to a coarse histogram of scores, for the area under the curve.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import sqrt

import numpy as np

from fedcore.config import Config
from fedcore.data.schema import Schema
from fedcore.errors import PlanRefused
from fedcore.local.metrics import auc, metrics_of
from fedcore.local.personal import measured
from fedcore.privacy.leaves import SHARES
from fedcore.types import Floats, Json, Reply

NOISE = "evaluation_noise"  # under this one the metrics say what deviation the noise gave a share
BINS = 16
DOUBT = 3.0  # deviations of its noise within which a number says nothing: one in a thousand is further off
_SIDES = ("positive", "negative")
_OWN = "personal_"


@dataclass(frozen=True)
class Shares:
    """Which metrics are shared under `mode` of privacy, each with its largest value.

    `curves` are the prefixes of those models whose scores are counted by class.
    """

    mode: str
    task: str
    limits: Mapping[str, float]
    curves: tuple[str, ...] = ()

    @property
    def by_row(self) -> bool:
        """Whether a row is the unit, and not a client."""
        return self.mode == "record"

    @property
    def size(self) -> int:
        """How many numbers are summed."""
        return 1 + len(self.limits) + 2 * BINS * len(self.curves)

    @property
    def norm(self) -> float:
        """The largest L2 norm of one unit's part: a half in each sum, and one bin of each histogram."""
        return sqrt((1 + len(self.limits)) / 4 + len(self.curves))

    def part(self, facts: Mapping[str, Json]) -> Floats:
        """What a client with these sums over its test rows adds (size,): `fedcore.local.metrics.measure`'s, own model's too.

        A client without test rows adds nothing.
        """
        rows = facts.get("rows", 0)
        if not rows:
            return np.zeros(self.size)
        units = rows if self.by_row else 1
        found = [units / 2]
        for name, limit in self.limits.items():
            mean = metrics_of(_of(name, facts), self.task).get(name.removeprefix(_OWN), limit / 2)
            found.append(units * min(max(mean / limit - 0.5, -0.5), 0.5))
        return np.concatenate([found, *self._histograms(facts)])

    def bounded(self, reply: Reply) -> Floats | None:
        """The part in a reply, None where there is none that could be added.

        Where the server adds the noise it cuts the part to its bound; one that came noised stays as it is.
        """
        part = np.asarray(reply.facts.get(SHARES, ()), np.float64)
        if reply.error is not None or part.shape != (self.size,) or not np.isfinite(part).all():
            return None
        if self.mode != "central":
            return part
        part[0] = min(max(part[0], 0.0), 0.5)
        return np.clip(part, -0.5, 0.5)

    def metrics(self, total: Floats, deviation: float) -> dict[str, float]:
        """Means over the units, from noisy sums (size,) with noise of `deviation` a sum, in their ranges.

        None at all where the noisy count does not stand out from its noise.
        """
        units = 2 * float(total[0])
        if units <= 2 * DOUBT * deviation:
            return {}
        means = {
            name: limit * min(max(0.5 + float(summed) / units, 0.0), 1.0)
            for (name, limit), summed in zip(self.limits.items(), total[1:], strict=False)
        }
        squares = {
            f"{prefix}mse": means[f"{prefix}loss"] for prefix in self._models if self.task == "regression"
        }
        return means | squares | self._areas(total) | {NOISE: deviation / units}

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics that noisy sums can tell."""
        squares = [f"{prefix}mse" for prefix in self._models if self.task == "regression"]
        return (*self.limits, *squares, *(f"{prefix}auc" for prefix in self.curves))

    @property
    def _models(self) -> tuple[str, ...]:
        return ("", _OWN) if f"{_OWN}loss" in self.limits else ("",)

    def _histograms(self, facts: Mapping[str, Json]) -> Iterable[Floats]:
        for prefix in self.curves:
            for side in _SIDES:
                yield np.asarray(_of(prefix, facts)[side], np.float64).reshape(BINS, -1).sum(axis=1)

    def _areas(self, total: Floats) -> dict[str, float]:
        counted = total[1 + len(self.limits) :].reshape(len(self.curves), 2, BINS)
        areas = {prefix: auc(*sides) for prefix, sides in zip(self.curves, counted, strict=True)}
        return {
            f"{prefix}auc": min(max(area, 0.0), 1.0) for prefix, area in areas.items() if area is not None
        }


def shares_of(config: Config, schema: Schema) -> Shares:
    """What clients share of an evaluation under ``privacy.evaluation: noised``."""
    mode, limit = config.privacy.mode, config.privacy.evaluation_clip
    named = {
        "classification": {"accuracy": 1.0},
        "regression": {"mae": sqrt(limit)},
        "survival": {"c_index": 1.0},
    }[schema.task]
    limits = {"loss": limit, **named}
    curves: tuple[str, ...] = ("",) if mode == "record" and len(schema.classes) == 2 else ()
    if measured(config):
        limits |= {_OWN + name: most for name, most in limits.items()}
        curves += tuple(_OWN for _ in curves)
    return Shares(mode, schema.task, limits, curves)


def added_up(replies: Iterable[Reply], shares: Shares) -> tuple[Floats, int]:
    """The sum (size,) of the parts in `replies`, in the order of their clients, and how many there were."""
    parts = {reply.client: shares.bounded(reply) for reply in replies}
    known = [part for _, part in sorted(parts.items()) if part is not None]
    return np.sum([np.zeros(shares.size), *known], axis=0), len(known)


def refuse_noised(config: Config, what: str) -> None:
    """Raise `PlanRefused` for evaluations under noise where `what` asks for more of them than are paid."""
    if config.privacy.evaluation == "noised":
        raise PlanRefused(
            f"privacy.evaluation noised: {what} judges models beside its rounds, which no account would count; "
            "set privacy.evaluation: clear"
        )


def _of(name: str, facts: Mapping[str, Json]) -> Mapping[str, Json]:
    """The sums of the model that the metric `name` is of: the client's own, or that of all."""
    own: Mapping[str, Json] = facts["personal"] if name.startswith(_OWN) else facts
    return own
