"""Models in PyTorch: those of the zoo, or any module by import path.

The module's parameters are views into one flat tensor, and so are their gradients: a step of
SGD is two operations on one vector, and nothing is copied between rounds but that vector.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from fedcore.adapters.factory import made_by, refuse_outputs, refuse_rows
from fedcore.adapters.layers import built_in_layout, built_in_start, clipped_one_by_one, epochs
from fedcore.adapters.model import ModelSpec, Training
from fedcore.adapters.pytorch_dense import DensePasses
from fedcore.adapters.pytorch_layers import network
from fedcore.adapters.zoo import DENSE, RECURRENT, layers
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
        self._spare: list[torch.nn.Module] = []

    def _build(self) -> torch.nn.Module:
        """A fresh module; what its own initialisation draws does not reach the global generator."""
        with torch.random.fork_rng(devices=[]):
            return _from_factory(self.spec) if self.spec.factory else network(layers(self.spec))

    @cached_property
    def layout(self) -> Layout:
        """Names and shapes of the module's parameters, in its own order."""
        if not self.spec.factory:
            return built_in_layout(self.spec)
        module = self._build()
        self._try(module)
        named = list(module.named_parameters())
        return Layout(tuple(n for n, _ in named), tuple(tuple(p.shape) for _, p in named))

    def init(self, rng: np.random.Generator) -> Vector:
        """Initial parameters (d,): the built-in start, or the module's own under a seed from `rng`."""
        if not self.spec.factory:
            return built_in_start(self.spec, rng)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**63)))
            module = _from_factory(self.spec)
            self._try(module)
            return torch.cat([p.detach().reshape(-1) for p in module.parameters()]).numpy().astype(np.float32)

    def _try(self, module: torch.nn.Module) -> None:
        """Raise `BadConfig` for a module that cannot take the data's rows, before any client trains."""
        with _one_thread(), torch.no_grad():
            self._outputs(module.eval(), torch.zeros(2, *self.spec.input_shape))

    @cached_property
    def draws(self) -> bool:
        """Whether training draws from torch's generator, as dropout does: seen on a row of zeros."""
        if not self.spec.factory:
            return False
        with torch.random.fork_rng(devices=[]), _one_thread(), torch.no_grad():
            module = self._build().train()
            before = torch.random.get_rng_state()
            self._outputs(module, torch.zeros(2, *self.spec.input_shape))
            return not torch.equal(before, torch.random.get_rng_state())

    def module(self, vector: Vector) -> torch.nn.Module:
        """A module of its own in evaluation mode that holds `vector` and returns logits or values."""
        module = self._build()
        self._bind(module, torch.from_numpy(np.array(vector, dtype=np.float32)))
        return module.eval()

    def scores(self, vector: Vector, x: Rows) -> Rows:
        """Probabilities or values: see the protocol."""
        flat = torch.from_numpy(
            np.require(vector, np.float32, ["C", "W"])
        )  # a copy only where torch needs one
        with _one_thread(), torch.no_grad(), self._passes(flat) as passes:
            parts = [self.activate(passes.outputs(part)) for part in _chunks(x)]
        return torch.cat(parts).numpy()

    def loss_and_gradient(self, vector: Vector, x: Rows, y: Rows) -> tuple[float, Vector]:
        """Mean loss and its gradient, by autograd or its kernels."""
        flat = torch.from_numpy(np.array(vector, dtype=np.float32))
        with _one_thread(), self._passes(flat, training=True) as passes:
            loss = passes.loss(torch.from_numpy(x), self._labels(y))
            return float(loss), passes.gradient.numpy()

    def pullback(self, vector: Vector, x: Rows) -> tuple[Rows, Callable[[Rows], Vector]]:
        """Logits or scaled values (n, outputs), and what makes the gradient (d,) of one at them (n, outputs).

        What a module draws in training, such as dropout, is off.
        """
        module = self._build().eval()
        gradient = self._bind(module, torch.from_numpy(np.array(vector, dtype=np.float32)))
        with _one_thread():
            out = self._outputs(module, torch.from_numpy(x))

        def pull(back: Rows) -> Vector:
            gradient.zero_()
            with _one_thread():
                out.backward(torch.from_numpy(back), retain_graph=True)  # type: ignore[no-untyped-call]
            return gradient.numpy().copy()

        return out.detach().numpy(), pull

    def train(
        self, vector: Vector, x: Rows, y: Rows, settings: Training, rng: np.random.Generator
    ) -> tuple[Vector, Mapping[str, float]]:
        """Local SGD as `Training` says; ``loss`` is the mean over the last epoch."""
        flat = torch.from_numpy(np.array(vector, dtype=np.float32))
        rows_x, rows_y = torch.from_numpy(x), self._labels(y)
        total, seen = 0.0, 1
        with _one_thread(), self._chance(rng), self._passes(flat, training=True) as passes:
            step = _step(flat, passes.gradient, settings)
            for epoch in epochs(len(x), settings, rng):
                order = torch.from_numpy(np.concatenate(epoch))
                losses: list[torch.Tensor] = []
                cut = [torch.split(rows[order], settings.batch_size) for rows in (rows_x, rows_y)]
                for batch_x, batch_y in zip(*cut, strict=True):
                    losses.append(passes.loss(batch_x, batch_y))
                    step()
                total, seen = _total(losses, cut[1]), len(order)
        return flat.numpy(), {"loss": total / seen}

    @property
    def _dense(self) -> bool:
        return not self.spec.factory and self.spec.name in DENSE

    @contextmanager
    def _passes(self, flat: torch.Tensor, training: bool = False) -> "Iterator[DensePasses | ModulePasses]":
        """Passes at the parameters in `flat`, by a module that is built once and lent to one caller at a time."""
        if self._dense:
            yield DensePasses(self.spec, flat)
            return
        module = (self._spare.pop() if self._spare else self._build()).train(training)
        yield ModulePasses(module, self._bind(module, flat), self._outputs, self._loss)
        self._spare.append(module)

    @contextmanager
    def _chance(self, rng: np.random.Generator) -> Iterator[None]:
        """What a module draws (dropout) comes from `rng`; the order of batches stays as in numpy."""
        if self._dense:
            yield
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.spawn(1)[0].integers(2**63)))
            yield

    def _labels(self, y: Rows) -> torch.Tensor:
        labels = torch.from_numpy(y)
        return labels.long() if self.spec.task == "classification" and self.spec.outputs > 1 else labels

    def clipped_sum(self, vector: Vector, x: Rows, y: Rows, clip: float, rng: np.random.Generator) -> Floats:
        """Sum of clipped gradients of the rows, by opacus, or one by one for a recurrent model: see the protocol."""
        if not self.spec.factory and self.spec.name in RECURRENT:
            return clipped_one_by_one(
                lambda a, b: self.loss_and_gradient(vector, a, b)[1], x, y, clip, vector.size
            )
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
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            raise refuse_rows(self.spec, tuple(x.shape[1:]), error) from None
        refuse_outputs(self.spec, len(x), out)
        result: torch.Tensor = out
        return result

    def activate(self, out: torch.Tensor) -> torch.Tensor:
        """Scores from logits or scaled values (n, outputs)."""
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
        return functional.cross_entropy(out, y if y.dtype == torch.long else y.long())


class ModulePasses:
    """Passes of any module by autograd; its parameters' gradients are views of `gradient`."""

    def __init__(
        self,
        module: torch.nn.Module,
        gradient: torch.Tensor,
        outputs: Callable[[torch.nn.Module, torch.Tensor], torch.Tensor],
        loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    ) -> None:
        self.gradient = gradient
        self._module, self._outputs, self._loss = module, outputs, loss

    def outputs(self, x: torch.Tensor) -> torch.Tensor:
        """Logits or values (n, outputs)."""
        return self._outputs(self._module, x)

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Mean loss () over the rows; writes its gradient."""
        self.gradient.zero_()
        loss = self._loss(self.outputs(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()


def _step(flat: torch.Tensor, gradient: torch.Tensor, settings: Training) -> Callable[[], None]:
    """A step of SGD on `flat` that adds to `gradient` what `Training` says; both are changed in place."""
    anchor = flat.clone() if settings.anchor is None else torch.from_numpy(settings.anchor)
    correction = None if settings.correction is None else torch.from_numpy(settings.correction)
    mask = None if settings.mask is None else torch.from_numpy(settings.mask)
    velocity = torch.zeros_like(flat) if settings.momentum else gradient

    def step() -> None:
        if settings.weight_decay:
            gradient.add_(flat, alpha=settings.weight_decay)
        if correction is not None:
            gradient.add_(correction)
        if settings.proximal:
            gradient.add_(flat - anchor, alpha=settings.proximal)
        if mask is not None:
            gradient.mul_(mask)
        if settings.momentum:
            velocity.mul_(settings.momentum).add_(gradient)
        flat.sub_(velocity, alpha=settings.lr)

    return step


def _total(losses: list[torch.Tensor], batches: Sequence[torch.Tensor]) -> float:
    """The sum over rows of the batches' mean losses, added up in order."""
    if not losses:
        return 0.0
    sizes = torch.tensor([len(batch) for batch in batches], dtype=torch.float32)
    return float(sum((torch.stack(losses) * sizes).tolist()))


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


def _from_factory(spec: ModelSpec) -> torch.nn.Module:
    """The module that ``package.module:callable`` makes from (input_shape, outputs)."""
    module = made_by(spec, torch.nn.Module, "a torch.nn.Module")  # type: ignore[type-abstract, unused-ignore]
    if any(True for _ in module.buffers()):
        raise BadConfig(
            "model.factory",
            spec.factory,
            "holds buffers (such as batch norm's), which averaging would lose; use group norm",
        )
    return module
