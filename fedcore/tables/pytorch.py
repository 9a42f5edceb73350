"""The two convolutional networks of the published tables, for pictures of one channel: (28, 28) shares of 255."""

import torch
from torch import nn


class _Channel(nn.Module):
    """Pictures (n, h, w) as (n, 1, h, w), less `center` and over `scale`."""

    def __init__(self, center: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        self._center, self._scale = center, scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.unsqueeze(1) - self._center) / self._scale


def niid_cnn(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    """NIID-Bench's simple CNN: 5 x 5 convolutions to 6 and 16 channels without padding, dense 120, 84.

    Li et al. 2022, arXiv:2102.02079, section 5.
    """
    return nn.Sequential(
        _Channel(),
        *_blocks(6, 16),
        nn.Linear(16 * _left(input_shape), 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, outputs),
    )


def pfllib_cnn(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    """PFLlib's four-layer CNN: 5 x 5 convolutions to 32 and 64 channels without padding, dense 512.

    Pictures go from -1 to 1, as there. Zhang et al. 2023, arXiv:2312.04992.
    """
    return nn.Sequential(
        _Channel(0.5, 0.5),
        *_blocks(32, 64),
        nn.Linear(64 * _left(input_shape), 512),
        nn.ReLU(),
        nn.Linear(512, outputs),
    )


def _blocks(first: int, second: int) -> list[nn.Module]:
    """Two convolutions, each halved by a pool, and flat."""
    return [
        nn.Conv2d(1, first, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
    ]


def _left(input_shape: tuple[int, ...]) -> int:
    """Pixels of a channel after both blocks."""
    height, width = (((side - 4) // 2 - 4) // 2 for side in input_shape)
    return height * width
