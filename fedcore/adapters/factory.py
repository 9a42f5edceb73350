"""A model of yours by import path ``package.module:callable``, and the sentences for one that does not fit."""

from importlib import import_module
from typing import Any, TypeVar

from fedcore.adapters.model import ModelSpec
from fedcore.errors import BadConfig

Kind = TypeVar("Kind")


def made_by(spec: ModelSpec, kind: type[Kind], named: str) -> Kind:
    """What the factory of `spec` makes from (input_shape, outputs). Raises `BadConfig` unless it is a `kind`."""
    path = spec.factory or ""
    place, colon, name = path.partition(":")
    if not colon:
        raise BadConfig("model.factory", path, "must be package.module:callable")
    try:
        factory: Any = getattr(import_module(place), name)
    except (ImportError, AttributeError) as error:
        raise BadConfig("model.factory", path, f"cannot be imported ({error})") from None
    try:
        model = factory(spec.input_shape, spec.outputs)
    except Exception as error:
        raise BadConfig(
            "model.factory",
            path,
            f"fails for rows of shape {spec.input_shape} and {spec.outputs} outputs "
            f"({type(error).__name__}: {first_line(error)})",
        ) from error
    if not isinstance(model, kind):
        raise BadConfig("model.factory", path, f"must return {named}, returned {type(model).__name__}")
    return model


def refuse_rows(spec: ModelSpec, shape: tuple[int, ...], error: Exception) -> BadConfig:
    """The sentence for a model that fails on rows of `shape`."""
    return BadConfig(
        "model",
        spec.factory or spec.name,
        f"fails on rows of shape {shape} ({first_line(error)}); it was built for {spec.input_shape}",
    )


def refuse_outputs(spec: ModelSpec, rows: int, out: Any) -> None:
    """Raise `BadConfig` unless what a model returned for so many rows is one array (rows, outputs)."""
    shape = getattr(out, "shape", None)
    if shape is None or tuple(shape) != (rows, spec.outputs):
        found = f"a {type(out).__name__}" if shape is None else tuple(shape)
        raise BadConfig(
            "model",
            spec.factory or spec.name,
            f"must return shape ({rows}, {spec.outputs}), returns {found}",
        )


def first_line(error: Exception) -> str:
    """The first line of what an error says."""
    return (str(error).splitlines() or [type(error).__name__])[0]
