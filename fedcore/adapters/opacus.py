"""Gradients of single rows of a torch module, through the hooks that opacus puts on its layers.

Only opacus' gradients are used. Clipping and summing happen here in float64, where opacus' optimizer
works in the parameters' float32, and noise comes from the system's source, not from torch's.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from opacus import GradSampleModule
from opacus.validators import ModuleValidator

from fedcore.adapters.layers import clip_factors
from fedcore.errors import PlanRefused
from fedcore.types import Floats, Vector

_CHUNK = 32
Outputs = Callable[[torch.nn.Module, torch.Tensor], torch.Tensor]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class RowGradients:
    """A module whose parameters are views of `flat`; `loss` is the mean over the rows of their losses."""

    def __init__(
        self,
        module: torch.nn.Module,
        flat: torch.Tensor,
        outputs: Outputs,
        loss: Loss,
        input_shape: tuple[int, ...],
    ) -> None:
        refuse_mixed_rows(module, outputs, input_shape)
        for layer in module.modules():
            if isinstance(layer, torch.nn.Conv2d):  # opacus reads permuted pictures as if they were not
                layer.register_forward_pre_hook(_contiguous)
        self._hooked = GradSampleModule(module, loss_reduction="mean")
        self._parameters = list(module.parameters())
        self._flat, self._outputs, self._loss = flat, outputs, loss

    def clipped_sum(self, vector: Vector, x: torch.Tensor, y: torch.Tensor, clip: float) -> Floats:
        """Sum (d,) of the rows' gradients, each scaled down to L2 norm `clip`: see `Model.clipped_sum`."""
        for parameter in self._parameters:
            parameter.grad = parameter.grad_sample = None  # type: ignore[attr-defined]
        with torch.no_grad():
            self._flat.copy_(torch.from_numpy(vector))
        rows = x.clone().requires_grad_()  # hooks of the first layer fire on inputs that need a gradient
        self._loss(self._outputs(self._hooked, rows), y).backward()  # type: ignore[no-untyped-call]
        samples = [self._of(parameter, len(x)) for parameter in self._parameters]
        norms = torch.stack(
            [torch.linalg.vector_norm(sample, dim=1, dtype=torch.float64) for sample in samples]
        )
        lengths = torch.linalg.vector_norm(norms, dim=0).numpy()
        kept = np.flatnonzero(np.isfinite(lengths))
        factors = clip_factors(lengths[kept], clip)
        return np.concatenate([_weighted_sum(factors, sample.numpy(), kept) for sample in samples])

    def _of(self, parameter: torch.nn.Parameter, rows: int) -> torch.Tensor:
        """Gradients (rows, size) of one parameter, zeros where the loss does not depend on it."""
        sample = getattr(parameter, "grad_sample", None)
        if sample is None:
            return torch.zeros(rows, parameter.numel())
        result: torch.Tensor = sample.reshape(rows, -1)
        return result


def _contiguous(layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(x.contiguous() for x in inputs)


def _weighted_sum(factors: Floats, rows: NDArray[np.float32], kept: NDArray[np.intp]) -> Floats:
    """Σ factor · row (size,) over the rows `kept`, in float64 and a few at a time: one copy of all is slow."""
    summed = np.zeros(rows.shape[1])
    for at in range(0, len(kept), _CHUNK):
        summed += factors[at : at + _CHUNK] @ rows[kept[at : at + _CHUNK]].astype(np.float64)
    return summed


def refuse_mixed_rows(module: torch.nn.Module, outputs: Outputs, input_shape: tuple[int, ...]) -> None:
    """Raise `PlanRefused` for a module in which one row's output depends on the others' (batch norm).

    Opacus names the layers it knows; any other module is tried on random rows, one of which stays.
    """
    known = ModuleValidator.validate(module, strict=False)
    if known:
        seen = " ".join(str(known[0]).split())
        raise PlanRefused(
            f"privacy.mode record with this model: {seen.rstrip('.')}; "
            "choose layers that treat each record alone, such as group norm"
        )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        rows, seen_by = torch.randn(5, *input_shape), []
        for others in ([1, 2], [3, 4]):
            torch.manual_seed(1)  # the same dropout both times
            seen_by.append(outputs(module, rows[[0, *others]])[0])
    one, other = seen_by
    if not torch.allclose(one, other, rtol=1e-4, atol=1e-6):
        raise PlanRefused(
            "privacy.mode record with this model: what it says of one record depends on the others of the batch, "
            "so one record could move every gradient; choose layers that treat each record alone"
        )
