"""What a killed training goes on from: the model after each complete epoch, a file an epoch, the last one kept."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedcore.blobs import write_whole
from fedcore.errors import CorruptState, RunConflict
from fedcore.types import Vector, canonical_json


@dataclass(frozen=True)
class Epochs:
    """Parameters and velocity (d,) after as many complete epochs as there are `losses`."""

    vector: Vector
    velocity: Vector
    losses: tuple[float, ...]


@dataclass(frozen=True)
class Kept:
    """The epochs of one training in `folder`. `identity` is what must be equal for another to go on from them."""

    folder: Path
    identity: str

    def keep(self, epochs: Epochs) -> None:
        """Write the latest epoch, whole or not at all; then remove those before it."""
        arrays = {
            "vector": np.ascontiguousarray(epochs.vector),
            "velocity": np.ascontiguousarray(epochs.velocity),
        }
        facts = canonical_json({"identity": self.identity, "losses": list(epochs.losses)})
        self.folder.mkdir(parents=True, exist_ok=True)
        before = self._files()
        write_whole(
            self.folder / f"epoch-{len(epochs.losses):06d}.safetensors", save(arrays, {"facts": facts})
        )
        for file in before:
            if file != self._files()[-1]:
                file.unlink()

    def latest(self) -> Epochs | None:
        """The last epoch kept, None if there is none. Raises `RunConflict` for that of other settings, `CorruptState`."""
        files = self._files()
        if not files:
            return None
        try:
            with safe_open(files[-1], framework="numpy") as kept:
                facts = json.loads(kept.metadata()["facts"])
                vector, velocity = kept.get_tensor("vector"), kept.get_tensor("velocity")
            identity, losses = facts["identity"], tuple(facts["losses"])
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise CorruptState(
                f"{files[-1]} is not a kept epoch ({error}); remove it, or choose another --name"
            ) from None
        if identity != self.identity:
            raise RunConflict(
                f"{self.folder} holds epochs of other settings, data or numbers of ranks; choose another --name, "
                "or start as it was started"
            )
        return Epochs(vector, velocity, losses)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("epoch-*.safetensors"))
