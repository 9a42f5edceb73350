"""A model as ``mlflow.pyfunc.load_model("models:/NAME@champion")`` gives it: raw rows in, scores out.

MLflow calls `_load_pyfunc` by this module's name, which it finds in the model's own MLmodel
file; nothing is unpickled.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.adapters.trained import TrainedModel


class Scorer:
    """A trained model with the one method MLflow asks for."""

    def __init__(self, trained: TrainedModel) -> None:
        self.trained = trained

    def predict(self, rows: Any) -> NDArray[np.float32]:
        """Scores for a DataFrame of raw columns, or an array (n, *shape)."""
        if self.trained.schema.is_table:
            return self.trained.predict({name: rows[name].to_numpy() for name in rows.columns})
        return self.trained.predict({"x": np.asarray(rows)})


def _load_pyfunc(data_path: str) -> Scorer:
    return Scorer(TrainedModel.load(Path(data_path)))
