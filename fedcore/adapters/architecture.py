"""Networks as lists of layers: shapes, parameters, first numbers and cost, computed without any framework.

A step such as ``conv(6, 5)`` becomes a `Layer` once the shape of a row is known; `chain` lays steps
one after another. Every framework builds its network from the same layers, so parameters have the
same names, order and start everywhere.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from fedcore.types import Layout, Vector

Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Parameter:
    """One tensor; it starts uniform in `center` ± `limit`."""

    name: str
    shape: Shape
    limit: float
    center: float = 0.0


@dataclass(frozen=True)
class Layer:
    """One layer between rows of shape `into` and of shape `out`.

    `flops` are those of one row forward: a multiplication and an addition are two; what is done to
    each number alone (activations, pooling, normalisation, biases) is not counted.
    """

    kind: str
    into: Shape
    out: Shape
    parameters: tuple[Parameter, ...] = ()
    flops: int = 0
    options: Mapping[str, int] = field(default_factory=dict)


Step: TypeAlias = Callable[[Shape], Layer]


def chain(shape: Shape, *steps: Step) -> tuple[Layer, ...]:
    """The layers of `steps`, the first of which takes rows of `shape`."""
    layers: list[Layer] = []
    for step in steps:
        layers.append(step(layers[-1].out if layers else shape))
    return tuple(layers)


def flatten(shape: Shape) -> Layer:
    """All numbers of a row in one line."""
    return Layer("flatten", shape, (math.prod(shape),))


def relu(shape: Shape) -> Layer:
    """What is below zero becomes zero."""
    return Layer("relu", shape, shape)


def pool(shape: Shape) -> Layer:
    """The largest of each 2 x 2 pixels; an odd last row or column is left out."""
    channels, height, width = shape
    return Layer("pool", shape, (channels, height // 2, width // 2))


def mean(shape: Shape) -> Layer:
    """The mean of each channel's pixels."""
    return Layer("mean", shape, shape[:1])


def dense(outputs: int, zeros: bool = False) -> Step:
    """``x @ weight.T + bias``; starts uniform in ±1/√inputs, or at `zeros`."""

    def step(shape: Shape) -> Layer:
        (inputs,) = shape
        limit = 0.0 if zeros else 1.0 / math.sqrt(inputs)
        parameters = (Parameter("weight", (outputs, inputs), limit), Parameter("bias", (outputs,), limit))
        return Layer("dense", shape, (outputs,), parameters, 2 * inputs * outputs)

    return step


def picture(shape: Shape) -> Layer:
    """A picture as (channels, height, width): see `as_picture`. Raises `ValueError` for what is no picture."""
    return Layer("picture", shape, as_picture(shape), options={"last": int(_last(shape))})


def as_picture(shape: Shape) -> Shape:
    """(channels, height, width) of (height, width), of itself, or of (height, width, channels).

    Channels are the end of three numbers that is at most 4, the first if both are. Raises `ValueError`.

    >>> as_picture((28, 28)), as_picture((3, 32, 32)), as_picture((32, 32, 3))
    ((1, 28, 28), (3, 32, 32), (3, 32, 32))
    """
    if len(shape) == 2:
        return (1, *shape)
    if len(shape) == 3 and min(shape[0], shape[2]) <= 4:
        return (shape[2], *shape[:2]) if _last(shape) else shape
    raise ValueError(f"{shape} is not the shape of a picture")


def _last(shape: Shape) -> bool:
    return len(shape) == 3 and shape[0] > 4


def conv(
    channels: int, size: int, *, stride: int = 1, padding: int = 0, groups: int = 1, bias: bool = True
) -> Step:
    """`channels` square filters of `size`, each over its share of the incoming channels; uniform in ±1/√inputs."""

    def step(shape: Shape) -> Layer:
        before, height, width = shape
        out = (channels, *((side + 2 * padding - size) // stride + 1 for side in (height, width)))
        inputs = before // groups * size * size
        limit = 1.0 / math.sqrt(inputs)
        weight = Parameter("weight", (channels, before // groups, size, size), limit)
        parameters = (weight, Parameter("bias", (channels,), limit)) if bias else (weight,)
        options = {"stride": stride, "padding": padding, "groups": groups, "size": size}
        return Layer("conv", shape, out, parameters, 2 * inputs * math.prod(out), options)

    return step


def norm(groups: int) -> Step:
    """Group norm: each row alone, so that clients of any batch agree. Wu and He 2018, arXiv:1803.08494."""

    def step(shape: Shape) -> Layer:
        scale = Parameter("weight", shape[:1], 0.0, 1.0), Parameter("bias", shape[:1], 0.0)
        return Layer("norm", shape, shape, scale, options={"groups": groups})

    return step


def embedding(tokens: int, width: int) -> Step:
    """A line of token numbers as a line of `width` learned numbers each."""

    def step(shape: Shape) -> Layer:
        table = Parameter("weight", (tokens, width), 1.0)
        return Layer("embedding", shape, (*shape, width), (table,), options={"tokens": tokens})

    return step


def gru(units: int) -> Step:
    """The last state of gated recurrent units. Cho et al. 2014, arXiv:1406.1078."""
    return lambda shape: _recurrent("gru", 3, units, shape)


def lstm(units: int) -> Step:
    """The last output of long short-term memory. Hochreiter and Schmidhuber 1997."""
    return lambda shape: _recurrent("lstm", 4, units, shape)


def _recurrent(kind: str, gates: int, units: int, shape: Shape) -> Layer:
    steps, inputs = shape
    limit, rows = 1.0 / math.sqrt(units), gates * units
    parameters = (
        Parameter("weight_ih", (rows, inputs), limit),
        Parameter("weight_hh", (rows, units), limit),
        Parameter("bias_ih", (rows,), limit),
        Parameter("bias_hh", (rows,), limit),
    )
    return Layer(kind, shape, (units,), parameters, 2 * steps * rows * (inputs + units), {"units": units})


def layout(layers: tuple[Layer, ...]) -> Layout:
    """Names and shapes: ``0.weight``, ``0.bias``, ``1.weight`` … of the layers that have parameters."""
    learned = [layer for layer in layers if layer.parameters]
    named = [(f"{i}.{part.name}", part.shape) for i, layer in enumerate(learned) for part in layer.parameters]
    return Layout(tuple(name for name, _ in named), tuple(shape for _, shape in named))


def start(layers: tuple[Layer, ...], rng: np.random.Generator) -> Vector:
    """First parameters (d,), drawn from `rng` in the layout's order."""
    parts = [_drawn(part, rng) for layer in layers for part in layer.parameters]
    return np.concatenate(parts)


def _drawn(part: Parameter, rng: np.random.Generator) -> Vector:
    values = np.full(math.prod(part.shape), part.center, np.float32)
    return (
        values + rng.uniform(-part.limit, part.limit, values.size).astype(np.float32)
        if part.limit
        else values
    )
