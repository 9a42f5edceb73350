"""A logged model loads back by MLflow's own names and scores as before; logging it again is a no-op."""

import json

import mlflow.pyfunc
import numpy as np
import pandas
import pytest

from fedcore.adapters.trained import TrainedModel
from fedcore.tracking.mlflow.model import TRAINED, example, save_trained, signature


def _saved(trained, tmp_path):
    save_trained(trained, tmp_path / "model", "run", "m-1")
    return tmp_path / "model"


def test_a_table_model_takes_raw_rows_and_gives_its_own_scores(trained, rows, tmp_path):
    model = trained()
    loaded = mlflow.pyfunc.load_model(str(_saved(model, tmp_path)))
    table = pandas.DataFrame(rows)
    np.testing.assert_array_equal(loaded.predict(table), model.predict(rows))


def test_columns_in_any_order_and_without_the_label_are_enough(trained, rows, tmp_path):
    loaded = mlflow.pyfunc.load_model(str(_saved(trained(), tmp_path)))
    table = pandas.DataFrame(rows)
    np.testing.assert_array_equal(loaded.predict(table[["origin", "hour", "temp"]]), loaded.predict(table))


def test_an_array_model_takes_arrays(pictures, tmp_path):
    loaded = mlflow.pyfunc.load_model(str(_saved(pictures, tmp_path)))
    x = np.ones((5, 4, 4), np.float32)
    np.testing.assert_array_equal(loaded.predict(x), pictures.predict({"x": x}))


def test_the_trained_folder_inside_is_the_model(trained, tmp_path):
    model = trained()
    back = TrainedModel.load(_saved(model, tmp_path) / TRAINED)
    np.testing.assert_array_equal(back.vector, model.vector)
    assert (back.spec, back.features, back.schema) == (model.spec, model.features, model.schema)


@pytest.mark.parametrize(
    ("task", "outputs", "shape"),
    [("classification", 1, (-1,)), ("classification", 3, (-1, 3)), ("regression", 1, (-1,))],
)
def test_the_signature_names_raw_columns_and_the_shape_of_scores(trained, task, outputs, shape):
    found = signature(trained("numpy", task, outputs))
    assert found.inputs.input_names() == ["temp", "hour", "origin"]
    assert found.inputs.required_input_names() == ["hour", "origin"]
    assert found.outputs.inputs[0].shape == shape


def test_the_example_is_made_of_statistics_and_holds_no_row(trained, rows, pictures):
    features = trained().features
    made = example(features)
    temp = features.scales[0]
    np.testing.assert_allclose(made["temp"], [temp.fill[0], temp.fill[0] + temp.scale[0]])
    assert made["origin"].tolist() == ["EWR", "LGA"]
    assert not set(made["temp"]) & set(rows["temp"])
    assert example(pictures.features)["x"].shape == (2, 4, 4)


def test_no_file_of_a_model_is_a_pickle(trained, tmp_path):
    folder = _saved(trained(), tmp_path)
    assert not [p for p in folder.rglob("*") if p.suffix in {".pkl", ".pickle", ".pth", ".pt"}]
    needed = (folder / "requirements.txt").read_text()
    assert "fedcore-mlops==" in needed
    assert "+cpu" not in needed


@pytest.mark.slow
def test_the_network_alone_loads_as_pytorch_with_any_number_of_rows(trained, rows, tmp_path):
    import mlflow.pytorch
    import torch

    model = trained("torch")
    folder = _saved(model, tmp_path)
    network = mlflow.pytorch.load_model(str(folder))
    encoded = torch.from_numpy(model.features.encode(rows))
    with torch.no_grad():
        scores = torch.sigmoid(network(encoded))[:, 0].numpy()
    np.testing.assert_allclose(scores, model.predict(rows), rtol=1e-6)
    np.testing.assert_array_equal(
        mlflow.pyfunc.load_model(str(folder)).predict(pandas.DataFrame(rows)), model.predict(rows)
    )


def test_an_export_that_is_given_loads_as_onnx(trained, tmp_path):
    import mlflow.onnx
    import onnx

    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, 2])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None, 2])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    exported = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    onnx.save(exported, tmp_path / "exported.onnx")
    save_trained(trained(), tmp_path / "model", "run", "m-1", tmp_path / "exported.onnx")
    assert mlflow.onnx.load_model(str(tmp_path / "model")) == exported


def test_logging_a_model_ties_it_to_run_step_and_numbers_once(opened, record, trained):
    run, told = opened(), record(3, epsilon=2.0, delta=1e-5)
    run(told)
    model_id = run.log_model(trained(), told)
    assert run.log_model(trained(), told) == model_id
    found = run.client.get_logged_model(model_id)
    assert str(found.status) == "READY"
    assert found.source_run_id == run.run_id
    assert {m.key: m.value for m in found.metrics}["auc"] == pytest.approx(0.66)
    again = run.client.get_run(run.run_id)
    assert [(o.model_id, o.step) for o in again.outputs.model_outputs] == [(model_id, 3)]
    assert again.data.tags["fed.model_id"] == model_id
    assert len(run.client.get_metric_history(run.run_id, "auc")) == 1


def test_a_model_whose_upload_was_cut_off_is_logged_to_its_end(opened, record, trained):
    run, told = opened(), record(3)
    tags = {"fed.run": "first", "fed.round": "3", "fed.model_sha256": told.model_sha256}
    cut_off = run.client.create_logged_model(
        run.experiment_id, name="model", source_run_id=run.run_id, tags=tags
    )
    assert run.log_model(trained(), told) == cut_off.model_id
    assert str(run.client.get_logged_model(cut_off.model_id).status) == "READY"


def test_another_model_of_the_run_is_another_logged_model(opened, record, trained):
    run = opened()
    assert run.log_model(trained(), record(1)) != run.log_model(trained(), record(2))


def test_the_page_of_the_model_shows_example_and_signature(trained, tmp_path):
    folder = _saved(trained(), tmp_path)
    sample = json.loads((folder / "input_example.json").read_text())
    assert sample["columns"] == ["temp", "hour", "origin"]
    assert len(sample["data"]) == 2
