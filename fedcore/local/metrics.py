"""How good a model is: counted at each client, added up at the server.

A client sends sums, and for two classes a histogram of its scores per class, from which the
server computes the area under the curve of all clients together without seeing a score. For
survival it sends how many of its own pairs are ordered rightly: pairs across clients are never formed.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fedcore.adapters.cox import concordance, partial_likelihood
from fedcore.types import Json, Reply

BINS = 4096
_USUAL, _EACH_TENTH = (10, 50, 90), tuple(range(10, 100, 10))
_TINY = 1e-7


def measure(scores: NDArray[np.float32], y: NDArray[np.float32], task: str) -> dict[str, Json]:
    """A client's sums over its test rows: see `summarize`."""
    if task == "survival":
        return _measure_risks(scores, y)
    if task == "regression":
        return _measure_values(scores, y)
    return _measure_classes(scores, y) if scores.ndim == 2 else _measure_binary(scores, y)


def summarize(replies: Sequence[Reply], task: str) -> tuple[dict[str, float], dict[str, float]]:
    """Metrics of all clients' rows together, and quantiles over clients (p10, p50, p90, worst decile).

    Clients with a model of their own have measured that too: its metrics are named ``personal_…``, and
    there is a quantile for each tenth of the clients, so that before and after can be drawn.
    Clients without test rows, or whose reply is an error, do not count.
    """
    facts = [reply.facts for reply in replies if reply.error is None and reply.facts.get("rows")]
    if not facts:
        return {}, {}
    own = [f["personal"] for f in facts if "personal" in f]
    percents = _EACH_TENTH if own else _USUAL
    combined = {**_metrics(facts, task), "rows": float(sum(f["rows"] for f in facts))}
    spread = _spread([_metrics([f], task) for f in facts], percents)
    if not own:
        return combined, spread
    personal = _spread([_metrics([f], task) for f in own], percents)
    return combined | _personal(_metrics(own, task)), spread | _personal(personal)


def auc(positive: NDArray[np.int64], negative: NDArray[np.int64]) -> float | None:
    """Area under the ROC curve from score histograms, ties at half; None with one class only.

    Mann and Whitney 1947: the share of pairs in which the positive row scores higher.
    """
    pairs = float(positive.sum()) * float(negative.sum())
    if not pairs:
        return None
    below = np.concatenate([[0], np.cumsum(negative)[:-1]])
    return float((positive * (below + 0.5 * negative)).sum() / pairs)


def _measure_binary(scores: NDArray[np.float32], y: NDArray[np.float32]) -> dict[str, Json]:
    p = np.clip(scores.astype(np.float64), _TINY, 1 - _TINY)
    bins = np.minimum((p * BINS).astype(np.int64), BINS - 1)
    return {
        "rows": len(y),
        "loss_sum": float(-(y * np.log(p) + (1 - y) * np.log1p(-p)).sum()),
        "correct": int(((p >= 0.5) == (y > 0.5)).sum()),
        "positive": np.bincount(bins[y > 0.5], minlength=BINS).tolist(),
        "negative": np.bincount(bins[y <= 0.5], minlength=BINS).tolist(),
    }


def _measure_classes(scores: NDArray[np.float32], y: NDArray[np.float32]) -> dict[str, Json]:
    label = y.astype(np.int64)
    chance = np.clip(scores[np.arange(len(label)), label].astype(np.float64), _TINY, 1)
    correct = int((scores.argmax(axis=1) == label).sum())
    return {"rows": len(label), "loss_sum": float(-np.log(chance).sum()), "correct": correct}


def _measure_values(scores: NDArray[np.float32], y: NDArray[np.float32]) -> dict[str, Json]:
    error, wide = scores.astype(np.float64) - y, y.astype(np.float64)
    return {
        "rows": len(y),
        "loss_sum": float((error**2).sum()),
        "absolute_sum": float(np.abs(error).sum()),
        "y_sum": float(wide.sum()),
        "y_squares": float((wide**2).sum()),
    }


def _measure_risks(scores: NDArray[np.float32], y: NDArray[np.float32]) -> dict[str, Json]:
    pairs = concordance(scores, y)
    loss = partial_likelihood(scores, y)[0] * len(y)
    return {"rows": len(y), "loss_sum": loss, "concordant": pairs.concordant, "comparable": pairs.comparable}


def _metrics(facts: Sequence[Mapping[str, Json]], task: str) -> dict[str, float]:
    rows = sum(f["rows"] for f in facts)
    loss = sum(f["loss_sum"] for f in facts) / rows
    if task == "regression":
        return _value_metrics(facts, rows, loss)
    if task == "survival":
        pairs = sum(f["comparable"] for f in facts)
        return {"loss": loss} | ({"c_index": sum(f["concordant"] for f in facts) / pairs} if pairs else {})
    metrics = {"loss": loss, "accuracy": sum(f["correct"] for f in facts) / rows}
    if "positive" in facts[0]:
        area = auc(_added(facts, "positive"), _added(facts, "negative"))
        metrics |= {} if area is None else {"auc": area}
    return metrics


def _added(facts: Sequence[Mapping[str, Json]], side: str) -> NDArray[np.int64]:
    added: NDArray[np.int64] = np.stack([np.asarray(f[side], dtype=np.int64) for f in facts]).sum(axis=0)
    return added


def _value_metrics(facts: Sequence[Mapping[str, Json]], rows: int, loss: float) -> dict[str, float]:
    mean = sum(f["y_sum"] for f in facts) / rows
    variance = sum(f["y_squares"] for f in facts) / rows - mean**2
    metrics = {"loss": loss, "mse": loss, "mae": sum(f["absolute_sum"] for f in facts) / rows}
    return metrics | ({"r2": 1 - loss / variance} if variance > 0 else {})


def _personal(metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"personal_{name}": value for name, value in metrics.items()}


def _spread(clients: Sequence[Mapping[str, float]], percents: Sequence[int]) -> dict[str, float]:
    """Quantiles over clients of each metric that at least one client has."""
    spread: dict[str, float] = {}
    for name in sorted({name for metrics in clients for name in metrics}):
        values = np.sort([metrics[name] for metrics in clients if name in metrics])
        quantiles = np.quantile(values, np.array(percents) / 100)
        tail = max(1, len(values) // 10)
        worst = values[-tail:] if name in LOWER_IS_BETTER else values[:tail]
        spread |= {f"{name}_p{p}": float(q) for p, q in zip(percents, quantiles, strict=True)}
        spread[f"{name}_worst_decile"] = float(worst.mean())
    return spread


LOWER_IS_BETTER = frozenset({"loss", "mse", "mae"})
