"""What the built-in models of every framework share: their shapes and their first parameters.

Both frameworks lay a dense network out as ``0.weight (out, in)``, ``0.bias (out,)``, ``1.weight`` …
and start from the same numbers, so that the same training gives the same model.
"""

from collections.abc import Iterator

import numpy as np

from fedcore.adapters.model import ModelSpec, Training
from fedcore.errors import UnknownName
from fedcore.types import Floats, Layout, Vector

BUILT_IN = ("linear", "logistic", "mlp")


def widths(spec: ModelSpec) -> tuple[int, ...]:
    """Units of each layer from the inputs to the outputs. Raises `UnknownName`."""
    if spec.name not in BUILT_IN:
        raise UnknownName("model", spec.name, BUILT_IN)
    hidden = spec.hidden if spec.name == "mlp" else ()
    return (int(np.prod(spec.input_shape)), *hidden, spec.outputs)


def dense_layout(spec: ModelSpec) -> Layout:
    """Layout of a dense network."""
    sizes = widths(spec)
    names, shapes = [], []
    for i, (inputs, outputs) in enumerate(zip(sizes, sizes[1:], strict=False)):
        names += [f"{i}.weight", f"{i}.bias"]
        shapes += [(outputs, inputs), (outputs,)]
    return Layout(tuple(names), tuple(shapes))


def dense_init(spec: ModelSpec, layout: Layout, rng: np.random.Generator) -> Vector:
    """Uniform in ±1/√inputs for weights and biases, the usual start of a dense layer; zeros for ``linear``."""
    vector = np.zeros(layout.size, dtype=np.float32)
    if spec.name == "linear":
        return vector
    limit = 1.0
    for part in layout.split(vector).values():
        limit = 1.0 / np.sqrt(part.shape[1]) if part.ndim == 2 else limit
        part[...] = rng.uniform(-limit, limit, part.shape)
    return vector


def batches(rows: int, size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Row numbers of one epoch in random order, `size` at a time; the last batch may be shorter."""
    order = rng.permutation(rows)
    return [order[start : start + size] for start in range(0, rows, size)]


def epochs(rows: int, settings: Training, rng: np.random.Generator) -> Iterator[list[np.ndarray]]:
    """The batches of each epoch that `settings` asks for; with `steps` the last epoch ends where they are used up."""
    if settings.steps is None:
        for _ in range(settings.epochs):
            yield batches(rows, settings.batch_size, rng)
        return
    left = settings.steps
    while left > 0:
        epoch = batches(rows, settings.batch_size, rng)[:left]
        left -= len(epoch)
        yield epoch


def clip_factors(norms: Floats, clip: float) -> Floats:
    """What rows with gradients of these L2 `norms` are multiplied by, so that none exceeds `clip`, rounding included."""
    return np.minimum(1.0, clip / np.maximum(norms, np.finfo(np.float64).tiny)) * (1 - 2.0**-48)
