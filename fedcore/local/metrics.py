"""How good a model is: counted at each client, added up at the server.

A client sends sums, and for two classes a histogram of its scores per class, from which the
server computes the area under the curve of all clients together without seeing a score. For
survival it sends how many of its own pairs are ordered rightly: pairs across clients are never formed.
"""

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.adapters.cox import concordance, partial_likelihood
from fedcore.types import Json, Reply

BINS = 4096
_USUAL, _EACH_TENTH = (10, 50, 90), tuple(range(10, 100, 10))
_TINY = 1e-7
_HISTOGRAMS = ("positive", "negative")
_COUNTS = frozenset({"rows", "correct", "concordant", "comparable"})
_SUMS = frozenset({"loss_sum", "absolute_sum", "y_sum", "y_squares"})


def measure(
    scores: NDArray[np.float32], y: NDArray[np.float32], task: str, limit: float | None = None
) -> dict[str, Json]:
    """A client's sums over its test rows: see `summarize`.

    With a `limit` no row's loss counts with more, whatever its score; but for survival, where rows have none.
    """
    most = math.inf if limit is None else limit
    if limit is not None:
        scores = np.nan_to_num(scores)
    if task == "survival":
        return _measure_risks(scores, y)
    if task == "regression":
        return _measure_values(scores, y, most)
    return _measure_classes(scores, y, most) if scores.ndim == 2 else _measure_binary(scores, y, most)


def summarize(replies: Iterable[Reply], task: str) -> tuple[dict[str, float], dict[str, float]]:
    """Metrics of all clients' rows together, and quantiles over clients (p10, p50, p90, worst decile).

    Clients with a model of their own have measured that too: its metrics are named ``personal_…``, and
    there is a quantile for each tenth of the clients, so that before and after can be drawn.
    Clients without test rows, or whose reply is an error, do not count. Replies may come as they are
    made and in any order: a few numbers of each are kept, and sums are rounded once.
    """
    shared, own = _Pooled(task), _Pooled(task)
    for reply in replies:
        if reply.error is None and reply.facts.get("rows"):
            shared.add(reply.facts)
            if "personal" in reply.facts:
                own.add(reply.facts["personal"])
    if not shared.clients:
        return {}, {}
    percents = _EACH_TENTH if own.clients else _USUAL
    total, spread = shared.total(), shared.spread(percents)
    combined = {**metrics_of(total, task), "rows": float(total["rows"])}
    if not own.clients:
        return combined, spread
    return combined | _personal(metrics_of(own.total(), task)), spread | _personal(own.spread(percents))


class _Pooled:
    """What clients measured, added up one by one, and each one's own metrics."""

    def __init__(self, task: str) -> None:
        self.clients = 0
        self._task = task
        self._counts: dict[str, Any] = {}  # whole numbers and histograms by name: their sums are exact
        self._sums: dict[str, array[float]] = {}  # addends, for a sum that is rounded once
        self._each: dict[str, array[float]] = {}  # by metric, one value a client that has it

    def add(self, facts: Mapping[str, Json]) -> None:
        """Add one client's sums."""
        self.clients += 1
        for name, value in facts.items():
            if name in _HISTOGRAMS:
                self._counts[name] = self._counts.get(name, 0) + np.asarray(value, dtype=np.int64)
            elif name in _COUNTS:
                self._counts[name] = self._counts.get(name, 0) + value
            elif name in _SUMS:
                self._sums.setdefault(name, array("d")).append(value)
        for name, value in metrics_of(facts, self._task).items():
            self._each.setdefault(name, array("d")).append(value)

    def total(self) -> dict[str, Any]:
        """The sums of all clients, as one client would send them."""
        return self._counts | {name: _rounded_once(addends) for name, addends in self._sums.items()}

    @np.errstate(invalid="ignore")  # who judges looks for what is not finite
    def spread(self, percents: Sequence[int]) -> dict[str, float]:
        """Quantiles over clients of each metric that at least one client has."""
        spread: dict[str, float] = {}
        for name in sorted(self._each):
            values = np.sort(self._each[name])
            quantiles = np.quantile(values, np.array(percents) / 100)
            tail = max(1, len(values) // 10)
            worst = values[-tail:] if name in LOWER_IS_BETTER else values[:tail]
            spread |= {f"{name}_p{p}": float(q) for p, q in zip(percents, quantiles, strict=True)}
            spread[f"{name}_worst_decile"] = float(worst.mean())
        return spread


def _rounded_once(addends: Sequence[float]) -> float:
    """The sum of `addends`; not a number where it has none, be it too large or infinities of both signs."""
    try:
        return math.fsum(addends)
    except (OverflowError, ValueError):
        return math.nan


def auc(positive: NDArray[np.number[Any]], negative: NDArray[np.number[Any]]) -> float | None:
    """Area under the ROC curve from score histograms, ties at half; None with one class only, or less than none by noise.

    Mann and Whitney 1947: the share of pairs in which the positive row scores higher.
    """
    pairs = float(positive.sum()) * float(negative.sum())
    if not (pairs and positive.sum() > 0):
        return None
    below = np.concatenate([[0], np.cumsum(negative)[:-1]])
    return float((positive * (below + 0.5 * negative)).sum() / pairs)


def _measure_binary(scores: NDArray[np.float32], y: NDArray[np.float32], limit: float) -> dict[str, Json]:
    p = np.clip(scores.astype(np.float64), _TINY, 1 - _TINY)
    bins = np.minimum((p * BINS).astype(np.int64), BINS - 1)
    return {
        "rows": len(y),
        "loss_sum": float(np.minimum(-(y * np.log(p) + (1 - y) * np.log1p(-p)), limit).sum()),
        "correct": int(((p >= 0.5) == (y > 0.5)).sum()),
        "positive": np.bincount(bins[y > 0.5], minlength=BINS).tolist(),
        "negative": np.bincount(bins[y <= 0.5], minlength=BINS).tolist(),
    }


def _measure_classes(scores: NDArray[np.float32], y: NDArray[np.float32], limit: float) -> dict[str, Json]:
    label = y.astype(np.int64)
    chance = np.clip(scores[np.arange(len(label)), label].astype(np.float64), _TINY, 1)
    correct = int((scores.argmax(axis=1) == label).sum())
    return {
        "rows": len(label),
        "loss_sum": float(np.minimum(-np.log(chance), limit).sum()),
        "correct": correct,
    }


def _measure_values(scores: NDArray[np.float32], y: NDArray[np.float32], limit: float) -> dict[str, Json]:
    error, wide = scores.astype(np.float64) - y, y.astype(np.float64)
    return {
        "rows": len(y),
        "loss_sum": float(np.minimum(error**2, limit).sum()),
        "absolute_sum": float(np.minimum(np.abs(error), math.sqrt(limit)).sum()),
        "y_sum": float(wide.sum()),
        "y_squares": float((wide**2).sum()),
    }


def _measure_risks(scores: NDArray[np.float32], y: NDArray[np.float32]) -> dict[str, Json]:
    pairs = concordance(scores, y)
    loss = partial_likelihood(scores, y)[0] * len(y)
    return {"rows": len(y), "loss_sum": loss, "concordant": pairs.concordant, "comparable": pairs.comparable}


def metrics_of(total: Mapping[str, Json], task: str) -> dict[str, float]:
    """Metrics from the sums over some rows: see `measure`."""
    rows = total["rows"]
    loss = total["loss_sum"] / rows
    if task == "regression":
        return _value_metrics(total, rows, loss)
    if task == "survival":
        pairs = total["comparable"]
        return {"loss": loss} | ({"c_index": total["concordant"] / pairs} if pairs else {})
    metrics = {"loss": loss, "accuracy": total["correct"] / rows}
    if "positive" in total:
        area = auc(*(np.asarray(total[side], dtype=np.int64) for side in _HISTOGRAMS))
        metrics |= {} if area is None else {"auc": area}
    return metrics


def _value_metrics(total: Mapping[str, Json], rows: int, loss: float) -> dict[str, float]:
    mean = total["y_sum"] / rows
    variance = total["y_squares"] / rows - mean**2
    metrics = {"loss": loss, "mse": loss, "mae": total["absolute_sum"] / rows}
    return metrics | ({"r2": 1 - loss / variance} if variance > 0 else {})


def _personal(metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"personal_{name}": value for name, value in metrics.items()}


LOWER_IS_BETTER = frozenset({"loss", "mse", "mae"})
