"""The gates before a promotion, pure: numbers of a version in, what each gate saw out, or one refusal.

A number that is missing, or is not a number, never passes.
"""

from collections.abc import Mapping

from fedcore.config import Gate, PromotionConfig
from fedcore.errors import GateRefused
from fedcore.monitor.health import improvement

_STEP = "train a better model or change promotion.{} in params.yaml; no alias was moved"


def check_gates(
    config: PromotionConfig, metrics: Mapping[str, float], champion: Mapping[str, float] | None
) -> dict[str, str]:
    """Each gate's name and what it saw, for a version with `metrics`; `champion` are the present champion's.

    Raises `GateRefused` at the first gate that does not hold. Without a champion nothing has
    to be better than it.
    """
    seen = {gate.metric: _within(gate, metrics.get(gate.metric)) for gate in config.gates}
    if config.better_than_champion is not None and champion is not None:
        metric = config.better_than_champion
        seen[f"{metric} against champion"] = _better(metric, metrics.get(metric), champion.get(metric))
    return seen


def _within(gate: Gate, value: float | None) -> str:
    bounds = [
        f"{word} {limit:g}" for word, limit in (("min", gate.min), ("max", gate.max)) if limit is not None
    ]
    limits = " and ".join(bounds) or "any number"
    low = float("-inf") if gate.min is None else gate.min
    high = float("inf") if gate.max is None else gate.max
    if value is None or not low <= value <= high:  # NaN compares false, so it is refused
        raise GateRefused(gate.metric, _shown(value), limits, _STEP.format("gates"))
    return f"{_shown(value)} ({limits})"


def _better(metric: str, value: float | None, old: float | None) -> str:
    limits = f"better than the champion's {_shown(old)}"
    if value is None or old is None or not improvement(metric, value, old) > 0:
        raise GateRefused(metric, _shown(value), limits, _STEP.format("better_than_champion"))
    return f"{_shown(value)} ({limits})"


def _shown(value: float | None) -> str:
    return "missing" if value is None else f"{value:.6g}"
