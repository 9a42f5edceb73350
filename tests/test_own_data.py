"""Bring your own: a table with a client column, a folder with one file a client, a model by import path."""

import numpy as np
import pandas as pd
import pytest

from fedcore.adapters.trained import TrainedModel
from fedcore.config import config_from
from fedcore.coordinator import simulate
from fedcore.data.federated import read_columns
from fedcore.edge.export import export

BASE = {
    "run": {"rounds": 8},
    "checks": {"min_rows": 20, "docs": False},
    "local": {"lr": 0.1, "epochs": 3, "batch_size": 16},
    "tracking": {"enabled": False},
}


def houses(rng: np.random.Generator, rows: int) -> pd.DataFrame:
    """Prices in the hundreds of thousands: far from the numbers a network starts with."""
    area, town = rng.uniform(40, 200, rows), rng.choice(["north", "south"], rows)
    price = 50_000 + 3_000 * area + 40_000 * (town == "south") + rng.normal(0, 20_000, rows)
    return pd.DataFrame({"area": area, "town": town, "price": price, "row": np.arange(rows)})


@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_a_table_with_a_client_column_learns_prices_in_their_own_unit(tmp_path, rng, framework):
    table = houses(rng, 600).assign(agency=rng.choice(["a", "b", "c"], 600)).drop(columns="row")
    table.to_csv(tmp_path / "houses.csv", index=False)
    own = {"name": "own", "path": str(tmp_path / "houses.csv"), "client_column": "agency", "label": "price"}
    model = {"framework": framework, "hidden": [16]}
    config = config_from({**BASE, "data": {**own, "task": "regression"}, "model": model})
    result = simulate(config, tmp_path / "runs", "a")
    assert result.metrics["r2"] > 0.9
    assert 10_000 < result.metrics["mae"] < 40_000
    trained = TrainedModel.load(result.model_dir)
    columns, prices = read_columns(tmp_path / "runs/data/sites/a", trained.schema)
    assert np.corrcoef(trained.predict(columns), prices)[0, 1] > 0.9
    limits = config_from({"edge": {"parity": 1.0}}).edge
    assert export(trained, tmp_path / "edge", columns, limits).max_difference < 0.5


def test_a_folder_with_a_file_a_client_trains_a_model_by_import_path(tmp_path, rng, monkeypatch):
    (tmp_path / "clients").mkdir()
    for client in ("x", "y"):
        table = houses(rng, 200)
        table["dear"] = np.where(table.pop("price") > 450_000, "yes", "no")
        table.to_parquet(tmp_path / "clients" / f"{client}.parquet", index=False)
    (tmp_path / "shop_models.py").write_text(
        "import torch\n\n\ndef build(input_shape, outputs):\n"
        "    return torch.nn.Sequential(torch.nn.Linear(input_shape[0], 8), torch.nn.Tanh(), torch.nn.Linear(8, outputs))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    own = {"name": "own", "path": str(tmp_path / "clients"), "label": "dear"}
    config = config_from(
        {**BASE, "data": own, "model": {"framework": "torch", "factory": "shop_models:build"}}
    )
    result = simulate(config, tmp_path / "runs", "a")
    assert result.metrics["auc"] > 0.9
