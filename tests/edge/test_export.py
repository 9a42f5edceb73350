import json
import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from fedcore.adapters.trained import TrainedModel
from fedcore.config import EdgeConfig
from fedcore.edge.export import export, probe_rows
from fedcore.edge.model import EdgeModel
from fedcore.edge.onnx import onnx_bytes
from fedcore.errors import BadInput, GateRefused, UnknownName

LIMITS = EdgeConfig(max_latency_ms=1000.0)
SHAPES = [
    {"outputs": 1},
    {"outputs": 1, "name": "logistic"},
    {"outputs": 3},
    {"outputs": 1, "task": "regression"},
    {"outputs": 10, "shape": (4, 4)},
    {"outputs": 10, "shape": (16,)},
]


def _columns(trained: TrainedModel, rows: int) -> dict[str, np.ndarray]:
    return dict(trained.features.validate_rows(probe_rows(trained.features, rows)))


@pytest.mark.parametrize("kind", SHAPES, ids=str)
def test_an_exported_model_scores_as_the_trained_one_for_any_number_of_rows(make_trained, tmp_path, kind):
    trained = make_trained(**kind)
    export(trained, tmp_path, _columns(trained, 9), LIMITS)
    model = EdgeModel.load(tmp_path)
    for count in (1, 2, 33):
        rows = probe_rows(trained.features, count)
        expected = trained.predict(trained.features.validate_rows(rows))
        scores = model.predict(rows)
        assert scores.shape == expected.shape
        np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_a_built_in_torch_model_scores_the_same_after_export(make_trained, tmp_path):
    trained = make_trained(framework="torch")
    report = export(trained, tmp_path, _columns(trained, 64), LIMITS)
    assert report.max_difference < 1e-6
    assert report.rows == 64


FACTORY = """
import torch

def net(input_shape, outputs):
    layers = [torch.nn.Unflatten(1, (1, input_shape[0])), torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.GroupNorm(2, 4)]
    layers += [torch.nn.GELU(), torch.nn.Dropout(0.5), torch.nn.Flatten(), torch.nn.LazyLinear(outputs)]
    module = torch.nn.Sequential(*layers)
    module(torch.zeros(2, *input_shape))
    return module
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("outputs", "task"), [(1, "classification"), (10, "classification"), (1, "regression")], ids=str
)
def test_any_torch_module_scores_the_same_after_export_and_leaves_no_trace(
    make_trained, tmp_path, monkeypatch, capfd, outputs, task
):
    (tmp_path / "own_net.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(tmp_path)
    kind = {"outputs": outputs, "task": task, "shape": (6, 6)}
    trained = make_trained(framework="torch", factory="own_net:net", **kind)
    report = export(trained, tmp_path / "one", _columns(trained, 64), LIMITS)
    assert report.max_difference < 1e-5
    assert capfd.readouterr() == ("", "")
    export(trained, tmp_path / "two", _columns(trained, 64), LIMITS)
    _assert_same_and_anonymous(tmp_path / "one", tmp_path / "two")


def test_the_same_model_gives_the_same_bytes_and_tells_nothing_about_this_machine(make_trained, tmp_path):
    trained = make_trained()
    for folder in ("one", "two"):
        export(trained, tmp_path / folder, _columns(trained, 5), LIMITS, metrics={"auc": 0.75})
    _assert_same_and_anonymous(tmp_path / "one", tmp_path / "two")


def _assert_same_and_anonymous(one: Path, two: Path) -> None:
    for file in one.iterdir():
        data = file.read_bytes()
        assert data == (two / file.name).read_bytes()
        assert not re.search(rb"/(home|root|usr|tmp|work)/|\.py\b", data), file.name


def test_the_graph_takes_x_and_gives_scores_with_any_number_of_rows(bundles):
    session = onnxruntime.InferenceSession(
        (bundles[1] / "model.onnx").read_bytes(), providers=["CPUExecutionProvider"]
    )
    (x,), (scores,) = session.get_inputs(), session.get_outputs()
    assert (x.name, x.type, scores.name) == ("x", "tensor(float)", "scores")
    assert isinstance(x.shape[0], str)
    assert isinstance(scores.shape[0], str)


def test_probe_rows_hold_no_value_of_the_data_and_are_always_the_same(make_trained):
    trained = make_trained()
    rows = probe_rows(trained.features)
    assert rows == probe_rows(trained.features)
    assert any(row["wind"] is None for row in rows)
    assert len(rows) == 8


@pytest.mark.parametrize(
    ("limits", "gate"),
    [
        (EdgeConfig(max_bytes=10), "edge.max_bytes: value .*, limit 10"),
        (EdgeConfig(max_latency_ms=1e-6), "edge.max_latency_ms: value .*, limit 1e-06"),
        (EdgeConfig(parity=1e-30, max_latency_ms=1000), "edge.parity: value .*, limit 1e-30"),
    ],
)
def test_a_model_over_a_limit_is_refused_by_name_and_nothing_is_written(make_trained, tmp_path, limits, gate):
    trained = make_trained(outputs=3)
    with pytest.raises(GateRefused, match=gate):
        export(trained, tmp_path / "out", _columns(trained, 200), limits)
    assert not (tmp_path / "out").exists()


def test_a_model_that_answers_nonsense_is_refused(make_trained, tmp_path):
    trained = make_trained()
    trained.vector[:] = np.nan
    with pytest.raises(GateRefused, match="no numbers"):
        export(trained, tmp_path / "out", _columns(trained, 5), LIMITS)
    assert not (tmp_path / "out").exists()


def test_export_without_held_out_rows_is_refused(make_trained, tmp_path):
    trained = make_trained()
    none = {name: column[:0] for name, column in _columns(trained, 2).items()}
    with pytest.raises(BadInput, match="no held-out rows"):
        export(trained, tmp_path, none, LIMITS)


def test_an_unknown_framework_is_refused_with_the_known_ones(make_trained):
    trained = make_trained()
    object.__setattr__(trained.spec, "framework", "torhc")
    with pytest.raises(UnknownName, match="did you mean 'torch'"):
        onnx_bytes(trained)


def test_the_manifest_names_digests_metrics_and_probes(bundles):
    manifest = json.loads((Path(bundles[1]) / "manifest.json").read_text())
    assert set(manifest["sha256"]) == {"model.onnx", "features.json", "schema.json"}
    assert manifest["name"] == "toy"
    assert len(manifest["probe_rows"]) == len(manifest["probe_scores"]) == 8
