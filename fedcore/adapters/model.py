"""The protocol a model keeps, whatever framework it is written in, and the way to build one.

Parameters travel as one flat float32 vector with a `Layout`. Frameworks are imported by
`build_model` only when asked for.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fedcore.config import ModelConfig
from fedcore.data.features import Features
from fedcore.data.schema import Schema
from fedcore.errors import BadConfig, MissingExtra, UnknownName
from fedcore.types import Floats, Layout, Vector


@dataclass(frozen=True)
class ModelSpec:
    """Everything needed to build a model again: stored beside its parameters as JSON.

    `outputs` is 1 for regression, survival and two classes (one logit), else the number of classes.
    `input_shape` is the shape of one encoded row, `target` the center and scale of a regression's
    label: the network learns (label - center) / scale, and scores are in the label's unit. `tokens` is
    the size of the alphabet where a row holds token numbers, else 0.
    """

    framework: str
    name: str
    hidden: tuple[int, ...]
    factory: str | None
    input_shape: tuple[int, ...]
    outputs: int
    task: str
    target: tuple[float, float] = (0.0, 1.0)
    tokens: int = 0


class Stream(NamedTuple):
    """A client's endless row of batches, epoch after epoch: where it goes on, and what each epoch is shuffled with."""

    first: int  # number of the batch to begin with
    order: Callable[[int], np.random.Generator]  # epoch -> its randomness


@dataclass(frozen=True)
class Training:
    """Local training settings that a model needs to know.

    Each gradient becomes ``(gradient + weight_decay · w + correction + proximal · (w - anchor)) · mask``:
    `correction` (d,) is SCAFFOLD's and FedDyn's, `proximal` FedProx's μ with the `anchor` (d,) that it
    pulls to (None: where training starts), `mask` (d,) is 1 where parameters are trained and 0 where
    they stay (None: all are trained). With `steps` training ends after so many batches, whatever `epochs` says;
    `stream` says which ones (None: the first ones of a new order).
    """

    lr: float
    momentum: float
    weight_decay: float
    epochs: int
    batch_size: int
    correction: Vector | None = None
    proximal: float = 0.0
    anchor: Vector | None = None
    mask: Vector | None = None
    steps: int | None = None
    stream: Stream | None = None


class Model(Protocol):
    """A trainable function of a flat vector; holds no parameters between calls."""

    spec: ModelSpec

    @property
    def layout(self) -> Layout:
        """Names and shapes of the parameters."""
        ...

    def init(self, rng: np.random.Generator) -> Vector:
        """Initial parameters (d,)."""
        ...

    def scores(self, vector: Vector, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities (n,) for two classes, (n, classes) for more, values (n,) for regression, risks (n,) for survival."""
        ...

    def loss_and_gradient(
        self, vector: Vector, x: NDArray[np.float32], y: NDArray[np.float32]
    ) -> tuple[float, Vector]:
        """Mean loss over the rows and its gradient (d,)."""
        ...

    def train(
        self,
        vector: Vector,
        x: NDArray[np.float32],
        y: NDArray[np.float32],
        settings: Training,
        rng: np.random.Generator,
    ) -> tuple[Vector, Mapping[str, float]]:
        """Parameters after local SGD from `vector`, and facts (``loss``: mean over the last epoch)."""
        ...

    def clipped_sum(
        self,
        vector: Vector,
        x: NDArray[np.float32],
        y: NDArray[np.float32],
        clip: float,
        rng: np.random.Generator,
    ) -> Floats:
        """Sum (d,) over the rows of each row's own gradient, scaled down to L2 norm `clip`; zeros for no rows.

        One row more or less moves it by at most `clip`. A row whose gradient is not finite counts
        as zeros; `rng` is for what the model itself draws, such as dropout. Raises `PlanRefused`
        for a model in which rows see one another.
        """
        ...


def model_spec(config: ModelConfig, schema: Schema, features: Features) -> ModelSpec:
    """The model that fits the data: one output for regression and two classes, else one a class."""
    classes = len(schema.classes)
    outputs = classes if schema.task == "classification" and classes > 2 else 1
    return ModelSpec(
        framework=config.framework,
        name=config.name,
        hidden=config.hidden,
        factory=config.factory,
        input_shape=features.input_shape,
        outputs=outputs,
        task=schema.task,
        target=features.target,
        tokens=features.tokens,
    )


def build_model(spec: ModelSpec) -> Model:
    """The model of `spec`.

    Raises `UnknownName` for an unknown framework, `MissingExtra` for one that is not installed,
    `BadConfig` for one that does not learn the task.
    """
    if spec.framework not in FRAMEWORKS:
        raise UnknownName("framework", spec.framework, FRAMEWORKS)
    if spec.task == "survival" and spec.framework != "numpy":
        raise BadConfig(
            "model.framework", spec.framework, "learns classes and numbers; survival is learned with numpy"
        )
    framework = FRAMEWORKS[spec.framework]
    try:
        adapter = import_module(f"fedcore.adapters.{framework.module}")
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), framework.extra) from None
    model: Model = getattr(adapter, framework.model)(spec)
    return model


@dataclass(frozen=True)
class Framework:
    """Where a framework's adapter is, what it is called, and the extra that installs the framework."""

    module: str
    model: str
    extra: str


FRAMEWORKS: dict[str, Framework] = {
    "numpy": Framework("numpy", "NumpyModel", "torch"),
    "torch": Framework("pytorch", "TorchModel", "torch"),
    "sklearn": Framework("sklearn", "SklearnModel", "data"),
    "tensorflow": Framework("tensorflow", "TensorflowModel", "tensorflow"),
    "mlx": Framework("mlx", "MlxModel", "mlx"),
}
