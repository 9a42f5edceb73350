"""A trained model -> a folder that a device can run, once it keeps the limits of `EdgeConfig`.

The folder holds ``model.onnx``, ``features.json``, ``schema.json`` and ``manifest.json``. Nothing
is written when a limit is broken. The same model gives the same bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

import fedcore
from fedcore.adapters.trained import TrainedModel
from fedcore.config import EdgeConfig
from fedcore.data.features import Columns, Features
from fedcore.edge.files import sha256, write_atomically
from fedcore.edge.manifest import FEATURES, MANIFEST, MODEL, SCHEMA, Manifest
from fedcore.edge.model import EdgeModel
from fedcore.edge.onnx import onnx_bytes
from fedcore.errors import BadInput, GateRefused
from fedcore.rng import generator
from fedcore.types import vector_sha256

PROBES = 8
BATCH = 65_536
TRIES = 200


@dataclass(frozen=True)
class ExportReport:
    """What was measured: `max_difference` over `rows` held-out rows, median `latency_ms` of one raw row.

    `sha256` is the digest of ``model.onnx``, `bytes` the size of the whole bundle.
    """

    folder: Path
    sha256: str
    bytes: int
    rows: int
    max_difference: float
    latency_ms: float


def export(
    trained: TrainedModel,
    folder: Path,
    columns: Columns,
    limits: EdgeConfig,
    *,
    name: str = "model",
    metrics: Mapping[str, float] | None = None,
) -> ExportReport:
    """Write the bundle of `trained` into `folder`, judged on the held-out raw rows `columns`.

    Raises `GateRefused` when outputs, size or latency break `limits`, `BadInput` without rows.
    """
    files = _files(trained, name, metrics or {}, limits.parity)
    model = EdgeModel(files)
    rows, difference = _difference(trained, model, columns)
    _gate(
        "parity", difference, limits.parity, "the ONNX model differs from the trained one; report this model"
    )
    size = sum(map(len, files.values()))
    _gate("max_bytes", size, limits.max_bytes, "train a smaller model or raise edge.max_bytes")
    model.self_test()
    latency = _latency_ms(model)
    _gate(
        "max_latency_ms", latency, limits.max_latency_ms, "train a smaller model or raise edge.max_latency_ms"
    )
    for file in (
        MODEL,
        FEATURES,
        SCHEMA,
        MANIFEST,
    ):  # the manifest last: it is what makes the others a bundle
        write_atomically(folder / file, files[file])
    return ExportReport(folder, sha256(files[MODEL]), size, rows, difference, latency)


def probe_rows(features: Features, count: int = PROBES) -> list[dict[str, Any]]:
    """Made-up raw rows, the same for the same features: nobody's data, since devices get to see them."""
    rng = generator(0, "probe rows")
    rows: list[dict[str, Any]] = []
    for i in range(count):
        if features.shape:
            values = (
                rng.integers(features.tokens, size=features.width)
                if features.tokens
                else rng.normal(features.scales[0].center, features.scales[0].scale).round(4)
            )
            rows.append({"x": values.reshape(features.shape).tolist()})
            continue
        row: dict[str, Any] = {}
        for scale in features.scales:
            number = round(float(rng.normal(scale.center[0], scale.scale[0])), 4)
            row[scale.name] = None if scale.nullable and i == count - 1 else number
        for words in features.vocabularies:
            row[words.name] = str(rng.choice(words.words)) if words.words and i else "a word no site has"
        rows.append(row)
    return rows


def _files(
    trained: TrainedModel, name: str, metrics: Mapping[str, float], tolerance: float
) -> dict[str, bytes]:
    files = {
        MODEL: onnx_bytes(trained),
        FEATURES: trained.features.to_json().encode(),
        SCHEMA: trained.schema.to_json().encode(),
    }
    rows = probe_rows(trained.features)
    scores = trained.predict(trained.features.validate_rows(rows))
    if not np.isfinite(scores).all():
        raise GateRefused(
            "edge.parity",
            "nan",
            tolerance,
            "the trained model gives scores that are no numbers; train it again",
        )
    manifest = Manifest(
        name=name,
        task=trained.spec.task,
        classes=trained.schema.classes,
        sha256={file: sha256(data) for file, data in files.items()},
        source_sha256=vector_sha256(trained.vector),
        metrics={key: float(value) for key, value in metrics.items()},
        tolerance=tolerance,
        probe_rows=tuple(rows),
        probe_scores=tuple(scores.tolist()),
        fedcore=fedcore.__version__,
    )
    return {**files, MANIFEST: manifest.to_json().encode()}


def _difference(trained: TrainedModel, model: EdgeModel, columns: Columns) -> tuple[int, float]:
    """Rows compared, and the largest difference between the scores of both models."""
    x = trained.features.encode(columns)
    if len(x) == 0:
        raise BadInput("there are no held-out rows to compare the exported model on; give at least one")
    expected = trained.model.scores(trained.vector, x)
    scores = np.concatenate([model.score(x[start : start + BATCH]) for start in range(0, len(x), BATCH)])
    if scores.shape != expected.shape:
        raise GateRefused(
            "parity", scores.shape, expected.shape, "the ONNX model gives scores of another shape"
        )
    return len(x), float(np.abs(scores - expected).max())


def _latency_ms(model: EdgeModel) -> float:
    """Median milliseconds from one raw row to its score."""
    row, seconds = model.manifest.probe_rows[:1], []
    for _ in range(TRIES):
        start = perf_counter()
        model.predict(row)
        seconds.append(perf_counter() - start)
    return 1000 * median(seconds)


def _gate(gate: str, value: float, limit: float, step: str) -> None:
    if not value <= limit:  # also refuses what is not a number
        raise GateRefused(f"edge.{gate}", f"{value:.4g}", f"{limit:g}", step)
