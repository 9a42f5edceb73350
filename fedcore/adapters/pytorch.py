"""Models in PyTorch: the built-in dense networks, or any module by import path.

The module's parameters are views into one flat tensor, and so are their gradients: a step of
SGD is two operations on one vector, and nothing is copied between rounds but that vector.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedcore.adapters.layers import dense_init, dense_layout, epochs, widths
from fedcore.adapters.model import ModelSpec, Training
from fedcore.errors import BadConfig, MissingExtra
from fedcore.types import Floats, Layout, Vector

if TYPE_CHECKING:
    from fedcore.adapters.opacus import RowGradients

Rows = NDArray[np.float32]
_CHUNK = 65_536  # rows a forward pass takes at once when scoring


class TorchModel:
    """A module as a function of a flat vector: see `fedcore.adapters.model.Model`."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec

    def _build(self) -> torch.nn.Module:
        """A fresh module; what its own initialisation draws does not reach the global generator."""
        with torch.random.fork_rng(devices=[]):
            return _from_factory(self.spec) if self.spec.factory else _dense(self.spec)

    @cached_property
    def layout(self) -> Layout:
        """Names and shapes of the module's parameters, in its own order."""
        if not self.spec.factory:
            return dense_layout(self.spec)
        named = list(self._build().named_parameters())
        return Layout(tuple(n for n, _ in named), tuple(tuple(p.shape) for _, p in named))

    def init(self, rng: np.random.Generator) -> Vector:
        """Initial parameters (d,): the built-in start, or the module's own under a seed from `rng`."""
        if not self.spec.factory:
            return dense_init(self.spec, self.layout, rng)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**63)))
            parameters = _from_factory(self.spec).parameters()
            return torch.cat([p.detach().reshape(-1) for p in parameters]).numpy().astype(np.float32)

    def module(self, vector: Vector) -> torch.nn.Module:
        """A module of its own in evaluation mode that holds `vector` and returns logits or values."""
        module = self._build()
        self._bind(module, torch.from_numpy(np.array(vector, dtype=np.float32)))
        return module.eval()

    def scores(self, vector: Vector, x: Rows) -> Rows:
        """Probabilities or values: see the protocol."""
        module = self.module(vector)
        with _one_thread(), torch.no_grad():
            parts = [self._activate(self._outputs(module, part)) for part in _chunks(x)]
        return torch.cat(parts).numpy()

    def loss_and_gradient(self, vector: Vector, x: Rows, y: Rows) -> tuple[float, Vector]:
        """Mean loss and its gradient by autograd."""
        module = self._build().train()
        gradient = self._bind(module, torch.from_numpy(np.array(vector, dtype=np.float32)))
        with _one_thread():
            loss = self._loss(self._outputs(module, torch.from_numpy(x)), torch.from_numpy(y))
            loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach()), gradient.numpy()

    def train(
        self, vector: Vector, x: Rows, y: Rows, settings: Training, rng: np.random.Generator
    ) -> tuple[Vector, Mapping[str, float]]:
        """Local SGD as `Training` says; ``loss`` is the mean over the last epoch."""
        module = self._build().train()
        flat = torch.from_numpy(np.array(vector, dtype=np.float32))
        gradient = self._bind(module, flat)
        velocity = torch.zeros_like(flat)
        start = flat.clone() if settings.anchor is None else torch.from_numpy(settings.anchor)
        rows_x, rows_y = torch.from_numpy(x), torch.from_numpy(y)
        total, seen = torch.zeros((), dtype=torch.float64), 1
        with _one_thread(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(
                int(rng.spawn(1)[0].integers(2**63))
            )  # dropout; the batch order stays as in numpy
            for epoch in epochs(len(x), settings, rng):
                total.zero_()
                seen = sum(map(len, epoch))
                for order in epoch:
                    rows = torch.from_numpy(order)
                    gradient.zero_()
                    loss = self._loss(self._outputs(module, rows_x[rows]), rows_y[rows])
                    loss.backward()  # type: ignore[no-untyped-call]
                    with torch.no_grad():
                        _add_terms(gradient, flat, start, settings)
                        velocity.mul_(settings.momentum).add_(gradient)
                        flat.sub_(velocity, alpha=settings.lr)
                        total += loss.detach() * len(order)
        return flat.numpy(), {"loss": float(total) / seen}

    def clipped_sum(self, vector: Vector, x: Rows, y: Rows, clip: float, rng: np.random.Generator) -> Floats:
        """Sum of clipped gradients of the rows, by opacus: see the protocol."""
        gradients = self._row_gradients
        if not len(x):
            return np.zeros(vector.size)
        with _one_thread(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**63)))
            return gradients.clipped_sum(vector, torch.from_numpy(x), torch.from_numpy(y), clip)

    @cached_property
    def _row_gradients(self) -> "RowGradients":
        """Kept between steps: opacus' hooks are slow to put on. Its parameters are set at each call."""
        try:
            from fedcore.adapters.opacus import RowGradients
        except ImportError:
            raise MissingExtra("opacus", "privacy") from None
        module = self._build().train()
        random = np.random.default_rng(0).normal(0, 0.3, self.layout.size)  # zeros would hide mixed rows
        flat = torch.from_numpy(random.astype(np.float32))
        self._bind(module, flat)
        return RowGradients(module, flat, self._outputs, self._loss, self.spec.input_shape)

    def _bind(self, module: torch.nn.Module, flat: torch.Tensor) -> torch.Tensor:
        """Make the parameters views of `flat`, their gradients views of the tensor returned."""
        gradient = torch.zeros_like(flat)
        start = 0
        for parameter in module.parameters():
            stop = start + parameter.numel()
            parameter.data = flat[start:stop].view(parameter.shape)
            parameter.grad = gradient[start:stop].view(parameter.shape)
            start = stop
        return gradient

    def _outputs(self, module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        """Logits or values (n, outputs)."""
        try:
            out = module(x)
        except (RuntimeError, ValueError) as error:
            seen = str(error).splitlines()[0]
            raise BadConfig(
                "model",
                self.spec.factory or self.spec.name,
                f"fails on rows of shape {tuple(x.shape[1:])} ({seen})",
            ) from None
        if out.shape != (len(x), self.spec.outputs):
            raise BadConfig(
                "model",
                self.spec.factory or self.spec.name,
                f"must return shape ({len(x)}, {self.spec.outputs}), returns {tuple(out.shape)}",
            )
        result: torch.Tensor = out
        return result

    def _activate(self, out: torch.Tensor) -> torch.Tensor:
        if self.spec.task == "regression":
            center, scale = self.spec.target
            return out[:, 0] * scale + center
        return torch.sigmoid(out[:, 0]) if self.spec.outputs == 1 else torch.softmax(out, dim=1)

    def _loss(self, out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        functional = torch.nn.functional
        if self.spec.task == "regression":
            center, scale = self.spec.target
            return functional.mse_loss(out[:, 0], (y - center) / scale)
        if self.spec.outputs == 1:
            return functional.binary_cross_entropy_with_logits(out[:, 0], y)
        return functional.cross_entropy(out, y.long())


def _add_terms(gradient: torch.Tensor, flat: torch.Tensor, anchor: torch.Tensor, settings: Training) -> None:
    """Add to a batch's gradient what `Training` says, in place."""
    gradient.add_(flat, alpha=settings.weight_decay)
    if settings.correction is not None:
        gradient.add_(torch.from_numpy(settings.correction))
    if settings.proximal:
        gradient.add_(flat - anchor, alpha=settings.proximal)
    if settings.mask is not None:
        gradient.mul_(torch.from_numpy(settings.mask))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch on one thread: sums come out in the same order on any machine, and small models run faster."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _chunks(x: Rows) -> list[torch.Tensor]:
    return [
        torch.from_numpy(np.ascontiguousarray(x[i : i + _CHUNK])) for i in range(0, max(len(x), 1), _CHUNK)
    ]


def _dense(spec: ModelSpec) -> torch.nn.Module:
    sizes = widths(spec)
    modules: list[torch.nn.Module] = [torch.nn.Flatten()]
    for i, (inputs, outputs) in enumerate(zip(sizes, sizes[1:], strict=False)):
        modules += [torch.nn.ReLU()] if i else []
        modules += [torch.nn.Linear(inputs, outputs)]
    return torch.nn.Sequential(*modules)


def _from_factory(spec: ModelSpec) -> torch.nn.Module:
    """The module that ``package.module:callable`` makes from (input_shape, outputs)."""
    path = spec.factory or ""
    place, colon, name = path.partition(":")
    if not colon:
        raise BadConfig("model.factory", path, "must be package.module:callable")
    try:
        factory: Any = getattr(import_module(place), name)
    except (ImportError, AttributeError) as error:
        raise BadConfig("model.factory", path, f"cannot be imported ({error})") from None
    module = factory(spec.input_shape, spec.outputs)
    if not isinstance(module, torch.nn.Module):
        raise BadConfig(
            "model.factory", path, f"must return a torch.nn.Module, returned {type(module).__name__}"
        )
    if any(True for _ in module.buffers()):
        raise BadConfig(
            "model.factory",
            path,
            "holds buffers (such as batch norm's), which averaging would lose; use group norm",
        )
    return module
