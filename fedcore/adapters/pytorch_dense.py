"""Dense networks on one flat tensor, forward and back, by the kernels that autograd calls but without its graph.

Same kernels, same operands, same order: the bytes are those of ``loss.backward()``, in a third of the time.
"""

from collections.abc import Callable
from functools import cached_property

import torch

from fedcore.adapters.layers import built_in_layout
from fedcore.adapters.model import ModelSpec

_aten = torch.ops.aten
_threshold_backward = _aten.threshold_backward.default
_nll_loss, _nll_loss_backward = _aten.nll_loss_forward.default, _aten.nll_loss_backward.default
_log_softmax_backward = _aten._log_softmax_backward_data.default
_ONE = torch.ones(())
_ALIGNED = 64  # bytes: a product written to another place than a tensor's own may round otherwise
# (outputs (n, o), labels (n,)) -> (mean loss (), its gradient at the outputs (n, o))
Head = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


class DensePasses:
    """Forward and backward passes at the parameters in `flat` (d,); `gradient` (d,) is what the last one left."""

    def __init__(self, spec: ModelSpec, flat: torch.Tensor) -> None:
        self._flat, self._head = flat, head(spec)
        self._shapes = [torch.Size(shape) for shape in built_in_layout(spec).shapes]
        parts = self._parts(flat)
        self._weights = parts[::2]
        self._layers = list(zip([weight.t() for weight in parts[::2]], parts[1::2], strict=True))

    @cached_property
    def gradient(self) -> torch.Tensor:
        """The gradient (d,) that `loss` writes; made when it is first needed."""
        return torch.zeros_like(self._flat)

    @cached_property
    def _slopes(self) -> list[tuple[torch.Tensor, torch.Tensor, bool]]:
        """Each layer's gradient of weight and bias, and whether a product may be written where the former lies."""
        parts = self._parts(self.gradient)
        pairs = zip(parts[::2], parts[1::2], strict=True)
        return [(weight, bias, not weight.data_ptr() % _ALIGNED) for weight, bias in pairs]

    def _parts(self, whole: torch.Tensor) -> list[torch.Tensor]:
        """Views into `whole`, one a tensor of the layout."""
        cut = torch.split(whole, [shape.numel() for shape in self._shapes])
        return [part.view(shape) for part, shape in zip(cut, self._shapes, strict=True)]

    def outputs(self, x: torch.Tensor) -> torch.Tensor:
        """Logits or values (n, outputs)."""
        return self._forward(x)[-1]

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Mean loss () over the rows; writes its gradient. `y` is int64 for three classes or more."""
        steps = self._forward(x)
        loss, back = self._head(steps.pop(), y)
        for i in range(len(steps) - 1, -1, -1):
            weight, bias, aligned = self._slopes[i]
            if aligned:
                torch.mm(back.t(), steps[i], out=weight)
            else:
                weight.copy_(torch.mm(back.t(), steps[i]))
            torch.sum(back, 0, out=bias)
            if i:
                back = _threshold_backward(torch.mm(back, self._weights[i]), steps[i], 0)
        return loss

    def _forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The rows, then what each layer makes of them (n, units); ReLU lies between layers."""
        steps = [x.reshape(len(x), -1)]
        last = len(self._layers) - 1
        for i, (weight, bias) in enumerate(self._layers):
            out = torch.addmm(bias, steps[-1], weight)
            steps.append(out.relu_() if i < last else out)
        return steps


def head(spec: ModelSpec) -> Head:
    """The loss of the model's task with its slope: cross-entropy, logistic, or squared error."""
    if spec.task == "regression":
        return _squares(*spec.target)
    return _logistic if spec.outputs == 1 else _cross_entropy


def _cross_entropy(out: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logs = torch.log_softmax(out, 1)
    loss, weight = _nll_loss(logs, y, None, 1, -100)
    back = _nll_loss_backward(_ONE, logs, y, None, 1, -100, weight)
    return loss, _log_softmax_backward(back, logs, 1, torch.float32)


def _logistic(out: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logit = out[:, 0]
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logit, y)
    return loss, ((logit.sigmoid() - y) / len(y))[:, None]


def _squares(center: float, scale: float) -> Head:
    def of(out: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        aim = (y - center) / scale
        loss = torch.nn.functional.mse_loss(out[:, 0], aim)
        return loss, _aten.mse_loss_backward(_ONE, out[:, 0], aim, 1)[:, None]

    return of
