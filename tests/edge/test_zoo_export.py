"""Models of the zoo on a device, and as MLflow's bare network: the scores stay."""

import mlflow.pytorch
import numpy as np
import pytest
import torch

from fedcore.adapters.model import ModelSpec, build_model
from fedcore.adapters.trained import TrainedModel
from fedcore.config import EdgeConfig
from fedcore.data.features import Columns, describe, merge
from fedcore.data.schema import Schema
from fedcore.edge.export import export
from fedcore.edge.model import EdgeModel
from fedcore.errors import BadInput
from fedcore.rng import generator

LIMITS = EdgeConfig(max_latency_ms=1000.0)  # other tests may run beside this one
TOKENS = 12
MODELS = [("lenet", (16, 16)), ("dwcnn", (8, 8, 3)), ("gru", (9,)), ("lstm", (9,))]


def made(name: str, shape: tuple[int, ...]) -> tuple[TrainedModel, Columns]:
    tokens = TOKENS if name in ("gru", "lstm") else 0
    classes = tuple(str(i) for i in range(tokens or 3))
    schema = Schema("toy", "classification", "y", classes, shape=shape, tokens=tokens)
    rng = generator(3, "rows")
    x = rng.integers(tokens, size=(20, *shape)) if tokens else rng.normal(3, 2, size=(20, *shape))
    columns = {"x": x.astype(np.float32)}
    features = merge([describe(columns, schema)], schema)
    spec = ModelSpec("torch", name, (), None, shape, len(classes), "classification", tokens=features.tokens)
    return TrainedModel(spec, build_model(spec).init(generator(1, "init")), features, schema), columns


@pytest.mark.slow
@pytest.mark.parametrize(("name", "shape"), MODELS)
def test_a_model_of_the_zoo_scores_the_same_after_export(tmp_path, name, shape):
    trained, columns = made(name, shape)
    report = export(trained, tmp_path / "bundle", columns, LIMITS)
    assert report.max_difference < 1e-6
    files = {file.name: file.read_bytes() for file in (tmp_path / "bundle").iterdir()}
    device = EdgeModel(files)
    for rows in (1, 7):
        x = trained.features.encode({"x": columns["x"][:rows]})
        np.testing.assert_allclose(device.score(x), trained.predict({"x": columns["x"][:rows]}), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "shape"), MODELS)
def test_the_bare_network_of_the_zoo_loads_from_mlflow(tmp_path, name, shape):
    from fedcore.tracking.mlflow.model import save_trained

    trained, columns = made(name, shape)
    save_trained(trained, tmp_path / "model", "0" * 32, "m-0")
    network = mlflow.pytorch.load_model(str(tmp_path / "model"))
    x = torch.from_numpy(trained.features.encode(columns))
    with torch.no_grad():
        scores = torch.softmax(network(x), dim=1).numpy()
    np.testing.assert_allclose(scores, trained.predict(columns), atol=1e-6)


def test_a_trained_text_model_is_read_as_it_was_written(tmp_path):
    trained, columns = made("gru", (9,))
    trained.save(tmp_path)
    read = TrainedModel.load(tmp_path)
    assert (read.spec, read.features, read.schema) == (trained.spec, trained.features, trained.schema)
    np.testing.assert_array_equal(read.predict(columns), trained.predict(columns))


def test_token_numbers_stay_as_they_are():
    trained, columns = made("gru", (9,))
    np.testing.assert_array_equal(trained.features.encode(columns), columns["x"])


@pytest.mark.parametrize("wrong", [-1, TOKENS, 0.5])
def test_a_device_refuses_what_is_no_token(wrong):
    trained, _ = made("gru", (9,))
    with pytest.raises(
        BadInput, match=f"column 'x' holds {wrong}, and tokens are whole numbers from 0 to 11"
    ):
        trained.features.validate_rows([{"x": [wrong] * 9}])
    assert trained.features.validate_rows([{"x": [11] * 9}])["x"].tolist() == [[11] * 9]


def test_sets_without_tokens_are_written_as_before_there_were_any():
    trained, _ = made("lenet", (16, 16))
    assert "tokens" not in trained.features.to_json() + trained.schema.to_json()
