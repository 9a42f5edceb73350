"""A trained model as it travels: parameters, how to build it, how to encode raw rows.

One folder: ``model.safetensors`` (the flat vector), ``model.json`` (`ModelSpec`),
``features.json``, ``schema.json``. Training writes it; evaluation, tracking and the edge read it.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from fedcore.adapters.model import Model, ModelSpec, build_model
from fedcore.data.features import Columns, Features
from fedcore.data.schema import Schema
from fedcore.errors import CorruptState
from fedcore.types import Vector


@dataclass(frozen=True)
class TrainedModel:
    """Parameters with everything needed to use them on raw rows."""

    spec: ModelSpec
    vector: Vector
    features: Features
    schema: Schema

    @property
    def model(self) -> Model:
        """The model function, built again from its spec."""
        return build_model(self.spec)

    def predict(self, columns: Columns) -> NDArray[np.float32]:
        """Scores for raw rows: see `Model.scores`."""
        return self.model.scores(self.vector, self.features.encode(columns))

    def save(self, folder: Path) -> None:
        """Write the four files into `folder`, made if missing."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {"model": np.ascontiguousarray(self.vector, dtype=np.float32)}, folder / "model.safetensors"
        )
        spec = {name: value for name, value in asdict(self.spec).items() if name != "tokens" or value}
        (folder / "model.json").write_text(json.dumps(spec, indent=2, sort_keys=True) + "\n")
        (folder / "features.json").write_text(self.features.to_json())
        self.schema.save(folder)

    @classmethod
    def load(cls, folder: Path) -> "TrainedModel":
        """Read what `save` wrote. Raises `CorruptState` naming the file that is missing or broken."""
        try:
            tree = json.loads((folder / "model.json").read_text())
            tree |= {"hidden": tuple(tree["hidden"]), "input_shape": tuple(tree["input_shape"])}
            tree |= {"target": tuple(tree["target"])}
            vector = load_file(folder / "model.safetensors")["model"]
            features = Features.from_json((folder / "features.json").read_text())
            return cls(ModelSpec(**tree), vector, features, Schema.load(folder))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise CorruptState(f"{folder} is not a trained model ({error}); train again") from None
