"""The layers of `architecture` as torch modules; parameters are in the order of its layout."""

from collections.abc import Callable

import torch

from fedcore.adapters.architecture import Layer

Module = torch.nn.Module


def network(layers: tuple[Layer, ...]) -> Module:
    """The modules of `layers`, one after another."""
    return torch.nn.Sequential(*(MODULES[layer.kind](layer) for layer in layers))


class Picture(Module):
    """Rows of pictures as (rows, channels, height, width)."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self._last, self._out = bool(layer.options["last"]), layer.out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Channels go first."""
        return (x.permute(0, 3, 1, 2) if self._last else x).reshape(-1, *self._out)


class Mean(Module):
    """The mean over height and width."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, channels)."""
        return x.mean(dim=(2, 3))


class Tokens(Module):
    """Token numbers, which travel as float32, looked up in a table."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(layer.options["tokens"], layer.out[-1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, steps, width)."""
        result: torch.Tensor = self.table(x.long())
        return result


class Last(Module):
    """The output of a recurrent layer after the last step.

    Not ``torch.nn.GRU`` or ``LSTM``: those keep a second list of their weights, which an export takes for state.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self._lstm = layer.kind == "lstm"
        self.cells = torch.nn.ParameterList(torch.zeros(part.shape) for part in layer.parameters)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, units)."""
        start = x.new_zeros(1, x.shape[0], self.cells[1].shape[1])  # an export takes len(x) for a constant
        weights = list(self.cells)
        if self._lstm:
            out = torch.lstm(x, (start, start), weights, True, 1, 0.0, self.training, False, True)[0]
        else:
            out = torch.gru(x, start, weights, True, 1, 0.0, self.training, False, True)[0]
        return out[:, -1]


def _conv(layer: Layer) -> Module:
    options = layer.options
    return torch.nn.Conv2d(
        layer.into[0],
        layer.out[0],
        options["size"],
        options["stride"],
        options["padding"],
        groups=options["groups"],
        bias=len(layer.parameters) == 2,
    )


MODULES: dict[str, Callable[[Layer], Module]] = {
    "flatten": lambda layer: torch.nn.Flatten(),
    "relu": lambda layer: torch.nn.ReLU(),
    "pool": lambda layer: torch.nn.MaxPool2d(2),
    "mean": lambda layer: Mean(),
    "dense": lambda layer: torch.nn.Linear(layer.into[0], layer.out[0]),
    "picture": Picture,
    "conv": _conv,
    "norm": lambda layer: torch.nn.GroupNorm(layer.options["groups"], layer.into[0]),
    "embedding": Tokens,
    "gru": Last,
    "lstm": Last,
}
