"""A trained model as MLflow keeps it: one folder, loadable by several names, without a pickle.

``python_function`` takes raw rows and gives scores (`serving`), ``pytorch`` is the bare network
in pt2 for torch models, ``onnx`` the exported graph where one is given, and ``data/trained`` the
`TrainedModel` folder that the edge exports.
The input example is made from the feature statistics: no row of any client leaves it.
"""

import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

import mlflow.pyfunc
import numpy as np
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, Metric, Run
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec

import fedcore
from fedcore.adapters.trained import TrainedModel
from fedcore.data.features import Columns, Features
from fedcore.tracking.points import points
from fedcore.types import RoundRecord

PACKAGES = {
    "torch": ("torch",),
    "sklearn": ("scikit-learn",),
    "tensorflow": ("tensorflow-cpu", "keras"),
    "mlx": ("mlx",),
}
TRAINED = "data/trained"  # the TrainedModel folder inside a logged model


def log_trained(
    client: MlflowClient, run: Run, trained: TrainedModel, record: RoundRecord, onnx: Path | None = None
) -> str:
    """Id of the logged model of `trained`, made once for a run and digest even if a crash came between."""
    found = _logged(client, run, record) or _announce(client, run, record)
    if str(found.status) != "READY":
        with tempfile.TemporaryDirectory() as folder:
            save_trained(trained, Path(folder) / "model", run.info.run_id, found.model_id, onnx)
            client.log_model_artifacts(found.model_id, f"{folder}/model")
        client.finalize_logged_model(found.model_id, "READY")
    _link(client, run, found, record)
    return str(found.model_id)


def save_trained(
    trained: TrainedModel, folder: Path, run_id: str, model_id: str, onnx: Path | None = None
) -> None:
    """Write `trained`, and its export `onnx` if there is one, into the new `folder` in MLflow's layout."""
    sample = example(trained.features)
    meta = Model(run_id=run_id, model_id=model_id)
    with tempfile.TemporaryDirectory() as work:
        trained.save(Path(work) / "trained")
        mlflow.pyfunc.save_model(
            path=str(folder),
            loader_module="fedcore.tracking.mlflow.serving",
            data_path=f"{work}/trained",
            mlflow_model=meta,
            signature=signature(trained),
            input_example=_rows(trained, sample),
            pip_requirements=requirements(trained),
        )
    if trained.spec.framework == "torch":
        _add_pt2(trained, sample, folder, meta)
    if onnx is not None:
        _add_onnx(onnx, folder, meta)


def signature(trained: TrainedModel) -> ModelSignature:
    """Raw columns in, scores out; a nullable column is optional."""
    schema, features = trained.schema, trained.features
    if schema.is_table:
        numbers = [ColSpec(DataType.double, s.name, required=not s.nullable) for s in features.scales]
        words = [ColSpec(DataType.string, v.name, required=not v.nullable) for v in features.vocabularies]
        inputs = Schema([*numbers, *words])
    else:
        inputs = Schema([TensorSpec(np.dtype(np.float32), (-1, *features.input_shape))])
    shape = (-1,) if trained.spec.outputs == 1 else (-1, trained.spec.outputs)
    return ModelSignature(inputs, Schema([TensorSpec(np.dtype(np.float32), shape)]))


def example(features: Features) -> Columns:
    """Two made-up rows: the mean of every column, and one deviation above it; first and last word."""
    if features.shape:
        center, unit = (
            np.array(part, np.float32).reshape(features.shape)
            for part in (features.scales[0].center, features.scales[0].scale)
        )
        return {"x": np.stack([center, center + unit])}
    numbers = {s.name: np.array([s.fill[0], s.fill[0] + s.scale[0]]) for s in features.scales}
    words = {v.name: np.array((v.words[:1] + v.words[-1:]) or ("", "")) for v in features.vocabularies}
    return {**numbers, **words}


def requirements(trained: TrainedModel) -> list[str]:
    """What loading the model needs, with versions, without a build's local suffix."""
    needed = [f"fedcore-mlops=={fedcore.__version__}", f"numpy=={np.__version__}"]
    for package in PACKAGES.get(trained.spec.framework, ()):
        needed.append(f"{package}=={version(package).partition('+')[0]}")
    return needed


def _rows(trained: TrainedModel, sample: Columns) -> object:
    """`sample` as MLflow takes an example: a DataFrame for a table, an array else."""
    if not trained.schema.is_table:
        return sample["x"]
    import pandas

    return pandas.DataFrame({name: list(column) for name, column in sample.items()})


def _add_pt2(trained: TrainedModel, sample: Columns, folder: Path, meta: Model) -> None:
    """Add the bare network (encoded rows in, logits or values out) as flavour ``pytorch``."""
    import torch
    from mlflow import pytorch as pt2

    from fedcore.adapters.pytorch import TorchModel

    encoded = trained.features.encode(sample)
    tensors = ModelSignature(Schema([TensorSpec(np.dtype(np.float32), (-1, *encoded.shape[1:]))]))
    with tempfile.TemporaryDirectory() as work:
        network = TorchModel(trained.spec).module(trained.vector)
        for parameter in network.parameters():  # views of one vector; pt2 keeps each tensor by itself
            parameter.data = parameter.data.clone()
        pt2.save_model(
            network,
            f"{work}/pt2",
            signature=tensors,
            input_example=torch.from_numpy(encoded),
            serialization_format="pt2",
            pip_requirements=requirements(trained),
        )
        conf = Model.load(f"{work}/pt2").flavors["pytorch"]
        (Path(work) / "pt2" / conf["model_data"]).rename(folder / "pytorch")
    meta.add_flavor("pytorch", **{**conf, "model_data": "pytorch"})
    meta.save(str(folder / "MLmodel"))


def _add_onnx(file: Path, folder: Path, meta: Model) -> None:
    """Add the exported graph as flavour ``onnx``."""
    shutil.copyfile(file, folder / "model.onnx")
    facts = {"onnx_version": version("onnx"), "providers": ["CPUExecutionProvider"], "code": None}
    meta.add_flavor("onnx", data="model.onnx", onnx_session_options=None, **facts)
    meta.save(str(folder / "MLmodel"))


def _logged(client: MlflowClient, run: Run, record: RoundRecord) -> LoggedModel | None:
    where = f"source_run_id = '{run.info.run_id}' AND tags.`fed.model_sha256` = '{record.model_sha256}'"
    found = client.search_logged_models([run.info.experiment_id], filter_string=where, max_results=1)
    return found[0] if found else None


def _announce(client: MlflowClient, run: Run, record: RoundRecord) -> LoggedModel:
    """A logged model that is not READY yet: a crash before that is mended by doing it again."""
    facts = {"fed.run": record.run, "fed.round": str(record.round), "fed.model_sha256": record.model_sha256}
    return client.create_logged_model(
        run.info.experiment_id, name="model", source_run_id=run.info.run_id, tags=facts
    )


def _link(client: MlflowClient, run: Run, model: LoggedModel, record: RoundRecord) -> None:
    """Tie the model to its run at the round's step, with the round's numbers; again changes nothing."""
    linked = [output.model_id for output in (run.outputs.model_outputs if run.outputs else [])]
    if model.model_id not in linked:
        client.log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, record.round)])
    at = round(record.committed_at * 1000)
    numbers = points(record).items()
    told = [
        Metric(k, v, at, record.round, model_id=model.model_id, run_id=run.info.run_id) for k, v in numbers
    ]
    client.log_batch(run.info.run_id, told)
