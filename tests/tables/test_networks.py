"""The published tables' networks have the published sizes; pictures are moved in training alone."""

import numpy as np
import pytest
import torch

from fedcore.adapters.model import ModelSpec, build_model
from fedcore.adapters.pytorch import TorchModel
from fedcore.rng import generator


@pytest.mark.parametrize(
    ("factory", "shape", "parameters"),
    [
        ("niid_cnn", (28, 28), 44_426),
        ("pfllib_cnn", (28, 28), 582_026),
        ("niid_color_cnn", (3, 32, 32), 62_006),
    ],
)
def test_a_network_is_as_large_as_the_published_one_and_scores_pictures(factory, shape, parameters):
    spec = ModelSpec("torch", "mlp", (), f"fedcore.tables.pytorch:{factory}", shape, 10, "classification")
    model = build_model(spec)
    vector = model.init(generator(1, "init"))
    assert vector.size == parameters
    scores = model.scores(vector, np.zeros((3, *shape), np.float32))
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)


def test_training_pictures_are_cut_out_of_the_padded_picture_and_half_of_them_mirrored():
    from fedcore.tables.pytorch import _Moved

    torch.manual_seed(0)
    x = torch.rand(200, 2, 6, 9)
    moved, padded = _Moved(2)(x), torch.nn.functional.pad(x, (2,) * 4, mode="reflect")
    cuts = {(t, left): padded[:, :, t : t + 6, left : left + 9] for t in range(5) for left in range(5)}
    plain = sum(any(torch.equal(moved[i], cut[i]) for cut in cuts.values()) for i in range(200))
    mirrored = sum(any(torch.equal(moved[i], cut[i].flip(-1)) for cut in cuts.values()) for i in range(200))
    assert plain + mirrored == 200
    assert 70 <= mirrored <= 130
    assert torch.equal(_Moved(2).eval()(x), x)


def test_pictures_are_moved_by_the_batched_engine_too():
    from fedcore.adapters.pytorch_together import Together

    factory = "fedcore.tables.pytorch:niid_color_cnn"
    spec = ModelSpec("torch", "mlp", (), factory, (3, 32, 32), 10, "classification")
    assert Together(TorchModel(spec), "cpu").obstacle() is None
