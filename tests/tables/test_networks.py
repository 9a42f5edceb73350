"""The published tables' networks have the published sizes, and take pictures of one channel."""

import numpy as np
import pytest

from fedcore.adapters.model import ModelSpec, build_model
from fedcore.rng import generator


@pytest.mark.parametrize(("factory", "parameters"), [("niid_cnn", 44_426), ("pfllib_cnn", 582_026)])
def test_a_network_is_as_large_as_the_published_one_and_scores_pictures(factory, parameters):
    spec = ModelSpec("torch", "mlp", (), f"fedcore.tables.pytorch:{factory}", (28, 28), 10, "classification")
    model = build_model(spec)
    vector = model.init(generator(1, "init"))
    assert vector.size == parameters
    scores = model.scores(vector, np.zeros((3, 28, 28), np.float32))
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)
