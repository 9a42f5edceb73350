"""A model of your own: any function that makes a torch module for the shape of a row and the number of outputs.

    PYTHONPATH=examples fedcore simulate --preset digits -S model.framework=torch -S model.factory=own_model:residual

fedcore averages the module's parameters, so it must hold no buffers: take group norm, not batch norm.
"""

from math import prod

import torch


class Residual(torch.nn.Module):
    """Two dense layers around one that adds to what it gets."""

    def __init__(self, inputs: int, outputs: int, width: int = 32) -> None:
        super().__init__()
        self.first = torch.nn.Linear(inputs, width)
        self.middle = torch.nn.Sequential(torch.nn.GroupNorm(4, width), torch.nn.Linear(width, width))
        self.last = torch.nn.Linear(width, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits or values (n, outputs) of encoded rows (n, …)."""
        hidden = self.first(x.flatten(1)).relu()
        return self.last(hidden + self.middle(hidden).relu())


def residual(input_shape: tuple[int, ...], outputs: int) -> torch.nn.Module:
    """The module for rows of `input_shape`: one output for two classes and for regression, else one a class."""
    return Residual(prod(input_shape), outputs)
