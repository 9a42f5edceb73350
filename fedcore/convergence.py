"""Whether a run still gets better: which round was best so far, and how long there was no gain.

Pure: a run carries its `Progress` from round to round, and whoever has its rounds can compute it again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fedcore.config import Config, EvaluateConfig
from fedcore.data.schema import Schema
from fedcore.errors import PlanRefused, UnknownName
from fedcore.local.metrics import LOWER_IS_BETTER
from fedcore.local.personal import measured
from fedcore.local.shares import shares_of

_PERSONAL = "personal_"
_GATED = frozenset({"auc", "r2"})  # what a gate may ask for that noise can leave nobody to tell


@dataclass(frozen=True)
class Progress:
    """The best value of the watched metric so far, its round, and evaluations in a row without a gain since.

    `round` is from 0; the first of the run is always a gain.
    """

    best: float
    round: int
    waited: int = 0

    @property
    def improving(self) -> bool:
        """Whether the last evaluation was the best."""
        return self.waited == 0


def followed(
    before: Progress | None, number: int, metrics: Mapping[str, float], kept: bool, rules: EvaluateConfig
) -> Progress | None:
    """The progress after round `number`; one that was not judged changes nothing, one rolled back gains nothing.

    A gain is more than ``rules.min_delta`` better than the best so far.
    """
    if rules.metric not in metrics:
        return before
    value = metrics[rules.metric]
    if kept and (before is None or _gain(before.best, value, rules.metric) > rules.min_delta):
        return Progress(value, number)
    return None if before is None else replace(before, waited=before.waited + 1)


def course(
    rounds: Mapping[int, Mapping[str, float]], rolled_back: frozenset[int], rules: EvaluateConfig
) -> Progress | None:
    """The progress after all `rounds` (number -> metrics), in order; None if none was judged."""
    progress: Progress | None = None
    for number in sorted(rounds):
        progress = followed(progress, number, rounds[number], number not in rolled_back, rules)
    return progress


def why_stop(progress: Progress | None, rules: EvaluateConfig) -> str | None:
    """Why there is no use in waiting for a gain any more; None if there is."""
    if not rules.patience or progress is None or progress.waited < rules.patience:
        return None
    return (
        f"no gain in {rules.metric} in {progress.waited} evaluations (evaluate.patience): the model is that of round "
        f"{progress.round + 1}, {rules.metric} {progress.best:.4f}"
    )


def refuse_unseen(config: Config, schema: Schema, evaluates: bool) -> None:
    """Raise for a metric to watch that no evaluation will show: `UnknownName`, `PlanRefused` where nobody evaluates."""
    rules = config.evaluate
    if rules.patience and not evaluates:
        raise PlanRefused(
            f"evaluate.patience {rules.patience} with privacy.evaluation {config.privacy.evaluation}: no client reports "
            "how good the model is, so nobody can see that it stops improving; set evaluate.patience: 0"
        )
    told = _in_the_clear(config, schema)
    if config.privacy.evaluation == "noised":
        known = list(shares_of(config, schema).names)
        lost = next(
            (
                gate.metric
                for gate in config.promotion.gates
                if gate.metric in _GATED.union(told).difference(known)
            ),
            None,
        )
        if lost:
            raise PlanRefused(
                f"promotion.gates asks for {lost}, which no evaluation under noise gives where privacy.mode is "
                f"{config.privacy.mode}; gate by {', '.join(known)}, or set privacy.evaluation: clear"
            )
    else:
        known = told
    if rules.metric not in known:
        raise UnknownName("metric of evaluate.metric", rules.metric, known)


def _gain(old: float, new: float, metric: str) -> float:
    return old - new if metric.removeprefix(_PERSONAL) in LOWER_IS_BETTER else new - old


def _in_the_clear(config: Config, schema: Schema) -> list[str]:
    """The metrics of an evaluation in the clear."""
    names = {
        "classification": ["loss", "accuracy", *(["auc"] if len(schema.classes) == 2 else [])],
        "regression": ["loss", "mse", "mae", "r2"],
        "survival": ["loss", "c_index"],
    }[schema.task]
    return names + [_PERSONAL + name for name in names if measured(config)]
