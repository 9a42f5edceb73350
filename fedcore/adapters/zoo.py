"""The models that fedcore brings, each a few lines of layers, under 2 MB, for which data, in which frameworks.

A model is one row of `ZOO`. What a layer is, and what it costs, is in `architecture.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from fedcore.adapters.architecture import (
    Layer,
    Shape,
    as_picture,
    chain,
    conv,
    dense,
    embedding,
    flatten,
    gru,
    layout,
    lstm,
    mean,
    norm,
    picture,
    pool,
    relu,
)
from fedcore.adapters.model import ModelSpec
from fedcore.errors import BadConfig, UnknownName

DENSE = ("linear", "logistic", "mlp")
RECURRENT = ("gru", "lstm")
_EVERY = ("numpy", "torch", "sklearn", "tensorflow", "mlx")


@dataclass(frozen=True)
class Entry:
    """A model of the zoo: its layers for a spec, what rows it takes, and an input that is typical of it."""

    title: str
    build: Callable[[ModelSpec], tuple[Layer, ...]]
    frameworks: tuple[str, ...]
    takes: str
    fits: Callable[[ModelSpec], bool]
    typical: Shape
    outputs: int = 10
    tokens: int = 0


@dataclass(frozen=True)
class Cost:
    """What a model is in numbers: parameters, bytes as float32, FLOPs of one row forward, rows it was counted for."""

    name: str
    title: str
    frameworks: tuple[str, ...]
    input_shape: Shape
    outputs: int
    parameters: int
    bytes: int
    flops: int


def layers(spec: ModelSpec) -> tuple[Layer, ...]:
    """The layers of a built-in model. Raises `UnknownName`, and `BadConfig` for rows that it cannot take."""
    if spec.name not in ZOO:
        raise UnknownName("model", spec.name, ZOO)
    entry = ZOO[spec.name]
    if spec.framework not in entry.frameworks:
        known = ", ".join(entry.frameworks)
        raise BadConfig(
            "model.name", spec.name, f"is not there in framework {spec.framework}, only in {known}"
        )
    if not entry.fits(spec):
        raise BadConfig(
            "model.name",
            spec.name,
            f"takes {entry.takes}, and a row of these data has shape {spec.input_shape}",
        )
    return entry.build(spec)


def cost(name: str, hidden: tuple[int, ...] = (64, 32)) -> Cost:
    """What the model `name` costs on its typical input; `hidden` are the widths of an ``mlp``."""
    entry = ZOO[name]
    spec = ModelSpec(
        entry.frameworks[0],
        name,
        hidden,
        None,
        entry.typical,
        entry.outputs,
        "classification",
        tokens=entry.tokens,
    )
    built = layers(spec)
    size = layout(built).size
    return Cost(
        name=name,
        title=entry.title,
        frameworks=entry.frameworks,
        input_shape=entry.typical,
        outputs=entry.outputs,
        parameters=size,
        bytes=4 * size,
        flops=sum(layer.flops for layer in built),
    )


def _linear(spec: ModelSpec) -> tuple[Layer, ...]:
    return chain(spec.input_shape, flatten, dense(spec.outputs, zeros=True))


def _logistic(spec: ModelSpec) -> tuple[Layer, ...]:
    return chain(spec.input_shape, flatten, dense(spec.outputs))


def _mlp(spec: ModelSpec) -> tuple[Layer, ...]:
    hidden = [step for width in spec.hidden for step in (dense(width), relu)]
    return chain(spec.input_shape, flatten, *hidden, dense(spec.outputs))


def _lenet(spec: ModelSpec) -> tuple[Layer, ...]:
    """LeNet-5 with ReLU, maxima and no padding. LeCun et al. 1998; the CNN of Li et al. 2022, arXiv:2102.02079."""
    features = (picture, conv(6, 5), relu, pool, conv(16, 5), relu, pool, flatten)
    return chain(spec.input_shape, *features, dense(120), relu, dense(84), relu, dense(spec.outputs))


def _dwcnn(spec: ModelSpec) -> tuple[Layer, ...]:
    """Depthwise-separable blocks with group norm. Howard et al. 2017, arXiv:1704.04861, section 3.1."""
    blocks = [
        step
        for before, after in ((16, 32), (32, 64), (64, 128))
        for step in (
            conv(before, 3, stride=2, padding=1, groups=before, bias=False),
            norm(4),
            relu,
            conv(after, 1, bias=False),
            norm(4),
            relu,
        )
    ]
    stem = (picture, conv(16, 3, padding=1, bias=False), norm(4), relu)
    return chain(spec.input_shape, *stem, *blocks, mean, dense(spec.outputs))


def _gru(spec: ModelSpec) -> tuple[Layer, ...]:
    return chain(spec.input_shape, embedding(spec.tokens, 16), gru(128), dense(spec.outputs))


def _lstm(spec: ModelSpec) -> tuple[Layer, ...]:
    return chain(spec.input_shape, embedding(spec.tokens, 16), lstm(128), dense(spec.outputs))


def _is_picture(spec: ModelSpec, side: int) -> bool:
    try:
        return not spec.tokens and min(as_picture(spec.input_shape)[1:]) >= side
    except ValueError:
        return False


def _is_text(spec: ModelSpec) -> bool:
    return spec.tokens > 0 and len(spec.input_shape) == 1


_ANY = "rows of any shape"
_SHAPES = "as (height, width), (channels, height, width) or (height, width, channels)"
_TEXT = "lines of token numbers, such as those of data.name shakespeare"

ZOO: dict[str, Entry] = {
    "linear": Entry("one dense layer that starts at zero", _linear, _EVERY, _ANY, lambda spec: True, (784,)),
    "logistic": Entry("one dense layer", _logistic, _EVERY, _ANY, lambda spec: True, (784,)),
    "mlp": Entry(
        "dense layers as wide as model.hidden",
        _mlp,
        _EVERY,
        _ANY,
        lambda spec: True,
        (784,),
    ),
    "lenet": Entry(
        "LeNet-5: 2 convolutions, 3 dense layers",
        _lenet,
        ("torch",),
        f"pictures of at least 16 x 16, {_SHAPES}",
        lambda spec: _is_picture(spec, 16),
        (28, 28),
    ),
    "dwcnn": Entry(
        "depthwise-separable CNN with group norm",
        _dwcnn,
        ("torch",),
        f"pictures of at least 4 x 4, {_SHAPES}",
        lambda spec: _is_picture(spec, 4),
        (28, 28),
    ),
    "gru": Entry("next character by 128 gated units", _gru, ("torch",), _TEXT, _is_text, (80,), 74, 74),
    "lstm": Entry(
        "next character by 128 LSTM units",
        _lstm,
        ("torch",),
        _TEXT,
        _is_text,
        (80,),
        74,
        74,
    ),
}
