"""Whether a champion is still good enough: its metrics then and now, and drift, judged by `MonitorConfig`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fedcore.config import MonitorConfig
from fedcore.errors import BadInput

_LOWER_IS_BETTER = frozenset({"loss", "mse", "rmse", "mae", "brier"})
_SHOWN = 3  # drifted features named in a reason


@dataclass(frozen=True)
class Verdict:
    """What to do, and why in sentences; ``ok`` has no reasons."""

    action: Literal["ok", "retrain"]
    reasons: tuple[str, ...] = ()


def judge(
    champion: Mapping[str, float],
    newer: Mapping[str, float],
    drift: Mapping[str, float],
    config: MonitorConfig,
) -> Verdict:
    """``retrain`` when the metric fell by more than `max_drop`, or a feature drifted beyond `max_drift`.

    `champion` are the metrics the model was promoted with, `newer` those of the same model on
    newer data, `drift` a population stability index a feature. Raises `BadInput` if the
    watched metric is missing on either side: silence is not health.
    """
    fall = -improvement(config.metric, _value(newer, config, "newer"), _value(champion, config, "champion's"))
    reasons = []
    if fall > config.max_drop:
        now, then = newer[config.metric], champion[config.metric]
        reasons.append(
            f"{config.metric} went from {then:.4g} to {now:.4g}, "
            f"worse by {fall:.4g} (limit {config.max_drop:g})"
        )
    far = sorted((name for name in drift if drift[name] > config.max_drift), key=lambda name: -drift[name])
    if far:
        named = ", ".join(f"{name} {drift[name]:.3g}" for name in far[:_SHOWN])
        more = f" and {len(far) - _SHOWN} more" if len(far) > _SHOWN else ""
        reasons.append(f"drift beyond {config.max_drift:g} in {named}{more}")
    return Verdict("retrain" if reasons else "ok", tuple(reasons))


def improvement(metric: str, new: float, old: float) -> float:
    """By how much `new` is better than `old`; negative if worse. A loss or an error is better when lower.

    >>> improvement("auc", 0.8, 0.5) > 0, improvement("loss", 0.8, 0.5) > 0
    (True, False)
    """
    return old - new if metric.removeprefix("personal_") in _LOWER_IS_BETTER else new - old


def _value(metrics: Mapping[str, float], config: MonitorConfig, whose: str) -> float:
    if config.metric not in metrics:
        known = ", ".join(sorted(metrics)) or "nothing"
        raise BadInput(
            f"monitor.metric {config.metric!r} is not among the {whose} metrics ({known}); "
            "change monitor.metric in params.yaml"
        )
    return metrics[config.metric]
