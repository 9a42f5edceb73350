"""The convolutional networks of the published tables, for pictures as shares of 255: (28, 28), or of three channels."""

import torch
from torch import nn


class _Channel(nn.Module):
    """Pictures (n, h, w) as (n, 1, h, w), less `center` and over `scale`."""

    def __init__(self, center: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        self._center, self._scale = center, scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.unsqueeze(1) - self._center) / self._scale


class _Moved(nn.Module):
    """Training pictures (n, c, h, w) padded by their mirror image, cut at a random place, mirrored half of the time."""

    def __init__(self, by: int) -> None:
        super().__init__()
        self._by = by

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return x
        n, channels, height, width = x.shape
        padded = nn.functional.pad(x, (self._by,) * 4, mode="reflect")
        rows = self._places(n, height, x.device)
        columns = self._places(n, width, x.device)
        mirrored = torch.rand(n, 1, device=x.device) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
        own = torch.arange(n, device=x.device)[:, None, None, None]
        every = torch.arange(channels, device=x.device)[None, :, None, None]
        return padded[own, every, rows[:, None, :, None], columns[:, None, None, :]]

    def _places(self, n: int, length: int, device: torch.device) -> torch.Tensor:
        """(n, length): as many neighbours, from a random first one on."""
        first = torch.randint(0, 2 * self._by + 1, (n, 1), device=device)
        return first + torch.arange(length, device=device)


class _Colors(nn.Module):
    """Pictures (n, 3, h, w) less CIFAR-10's published mean and over its deviation, each of a channel."""

    MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean, deviation = (torch.tensor(part, device=x.device) for part in (self.MEAN, self.DEVIATION))
        return (x - mean[:, None, None]) / deviation[:, None, None]


def niid_color_cnn(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    """`niid_cnn` for pictures of three channels (3, h, w), which it moves and mirrors in training."""
    return nn.Sequential(
        _Moved(4),
        _Colors(),
        *_blocks(6, 16, channels=3),
        *_dense(16 * _left(input_shape[1:]), outputs),
    )


def niid_cnn(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    """NIID-Bench's simple CNN: 5 x 5 convolutions to 6 and 16 channels without padding, dense 120, 84.

    Li et al. 2022, arXiv:2102.02079, section 5.
    """
    return nn.Sequential(
        _Channel(),
        *_blocks(6, 16),
        *_dense(16 * _left(input_shape), outputs),
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


def _dense(inputs: int, outputs: int) -> list[nn.Module]:
    """NIID-Bench's dense layers."""
    return [nn.Linear(inputs, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, outputs)]


def _blocks(first: int, second: int, channels: int = 1) -> list[nn.Module]:
    """Two convolutions, each halved by a pool, and flat."""
    return [
        nn.Conv2d(channels, first, 5),
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
