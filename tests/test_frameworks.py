"""The same run in any framework: three rounds of digits end in the same model up to rounding."""

import numpy as np
import pytest

from fedcore import simulate
from fedcore.coordinator import current_model
from fedcore.edge.onnx import onnx_bytes
from fedcore.errors import BadConfig


def _vector(settings, new_workdir, framework):
    workdir = new_workdir(framework)
    simulate(settings(f"model.framework={framework}"), workdir, "run")
    return current_model(workdir, "run").vector


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    return {}


@pytest.mark.parametrize("framework", ["torch", "sklearn", "mlx"])
def test_a_run_ends_in_the_model_that_numpy_ends_in(settings, new_workdir, reference, framework):
    """Within 1e-4 of parameters of order 1: float32 sums in another order, over three rounds."""
    if not reference:
        reference["vector"] = _vector(settings, new_workdir, "numpy")
    vector = _vector(settings, new_workdir, framework)
    assert np.abs(vector).max() > 0.3
    np.testing.assert_allclose(vector, reference["vector"], atol=1e-4)


def test_a_model_of_another_framework_is_exported_like_any_dense_network(settings, new_workdir):
    workdir = new_workdir("edge")
    simulate(settings("model.framework=mlx", "run.rounds=1"), workdir, "run")
    trained = current_model(workdir, "run")
    import onnxruntime

    x = trained.features.encode({"x": np.random.default_rng(1).random((7, 8, 8))})
    scores = onnxruntime.InferenceSession(onnx_bytes(trained)).run(None, {"x": x})[0]
    np.testing.assert_allclose(scores, trained.model.scores(trained.vector, x), atol=1e-6)


def test_pictures_too_small_for_a_model_are_refused_before_anyone_trains(settings, new_workdir):
    with pytest.raises(
        BadConfig, match=r"takes pictures of at least 16 x 16.*has shape \(8, 8\), got 'lenet'"
    ):
        simulate(settings("model.framework=torch", "model.name=lenet"), new_workdir("small"), "run")
