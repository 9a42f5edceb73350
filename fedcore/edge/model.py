"""A bundle in memory: checked against its manifest, ready to answer raw rows.

Everything a device needs of a model: features to encode, an onnxruntime session to score, and
the probe rows to see that both give what the trained model gave.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from fedcore.data.features import Features
from fedcore.data.schema import Schema
from fedcore.edge.manifest import FEATURES, MODEL, SCHEMA, check_digests, read_bundle
from fedcore.errors import BadInput, BundleRefused, CorruptState

Scores = NDArray[np.float32]  # (rows,) or (rows, classes)

onnxruntime.disable_telemetry_events()


class EdgeModel:
    """A model as a device runs it; `files` maps the names of a bundle to their bytes.

    Raises `BundleRefused` when a file is missing, differs from its digest, or cannot be loaded.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.manifest = check_digests(files)
        try:
            self.features = Features.from_json(files[FEATURES].decode())
            self.schema = Schema.from_json(files[SCHEMA].decode())
        except (CorruptState, UnicodeDecodeError) as error:
            raise BundleRefused(f"the bundle cannot be loaded: {error}") from None
        self._session = _session(files[MODEL])

    @classmethod
    def load(cls, folder: Path) -> "EdgeModel":
        """The bundle in `folder`."""
        return cls(read_bundle(folder))

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> Scores:
        """Scores of raw rows. Raises `BadInput` naming row and column."""
        columns = self.features.validate_rows(rows)
        with np.errstate(over="ignore"):  # float32 ends at 3e38; what lies beyond is refused below
            x = self.features.encode(columns)
            scores = self.score(x)
        for numbers in (x, scores):
            bad = np.flatnonzero(~np.isfinite(numbers.reshape(len(numbers), -1)).all(axis=1))
            if len(bad):
                raise BadInput(f"row {bad[0]} is too far out of range to be scored; send plausible values")
        return scores

    def score(self, x: NDArray[np.float32]) -> Scores:
        """Scores of encoded rows."""
        scores: Scores = self._session.run(["scores"], {"x": x})[0]
        return scores

    def self_test(self) -> None:
        """Nothing when the probe rows score as the trained model scored them, else `BundleRefused`."""
        claim = self.manifest
        expected = np.array(claim.probe_scores, np.float32)
        try:
            scores = self.predict(claim.probe_rows)
        except BadInput as error:
            raise BundleRefused(f"the bundle fails its own probe rows: {error}") from None
        if scores.shape != expected.shape:
            raise BundleRefused(
                f"the bundle gives scores of shape {scores.shape}, its manifest {expected.shape}"
            )
        difference = float(np.abs(scores - expected).max())
        if difference <= claim.tolerance:
            return
        raise BundleRefused(
            f"the bundle's scores differ from its manifest by {difference:.3g}, tolerance {claim.tolerance:g}; "
            f"export the model again"
        )


def _session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # requests run side by side already
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common class
        raise BundleRefused(
            f"model.onnx cannot be loaded ({str(error).splitlines()[0][:200]}); export again"
        ) from None
