"""Pictures whose training would give an update like the one that was seen: found by descent, in PyTorch.

DLG (Zhu et al. 2019, arXiv:1906.08935) minimises the distance with L-BFGS; inverting gradients
(Geiping et al. 2020, arXiv:2003.14053) the angle plus total variation with signed Adam. Both run
the client's own local steps on their guess, and know model, learning rate and number of rows.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from fedcore.adapters.pytorch import TorchModel
from fedcore.types import Floats, Vector

_CALLS = 20  # evaluations in one step of L-BFGS


@dataclass(frozen=True)
class Sight:
    """What an attacker sees and knows.

    `update` (d,) is what left the client, or the mean over clients, from the model `start`; `lr`
    and `steps` are the client's, each step over all its rows. A picture p in [0, 1] reaches the
    model as (p - center) / unit. `labels` are those of the pictures sought.
    """

    model: TorchModel
    start: Vector
    update: Vector
    lr: float
    steps: int
    center: Floats
    unit: Floats
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Recovered:
    """Pictures (n, *shape) in [0, 1], and the attacker's objective at the start and at these pictures."""

    pictures: Floats
    before: float
    after: float


def dlg(sight: Sight, rng: np.random.Generator, steps: int = 30) -> Recovered:
    """Pictures by L-BFGS on the squared distance of gradients, `steps` times 20 evaluations."""
    descent = _Descent(sight, rng)
    optimizer = torch.optim.LBFGS([descent.guess], lr=1.0, max_iter=_CALLS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = ((descent.gradient() - descent.seen) ** 2).sum()
        loss.backward()
        return descent.noted(loss)

    with threadpool_limits(1):
        for _ in range(steps):
            optimizer.step(closure)  # type: ignore[no-untyped-call]
    return descent.best()


def inverting(
    sight: Sight, rng: np.random.Generator, steps: int = 400, smooth: float = 1e-3, lr: float = 0.1
) -> Recovered:
    """Pictures by `steps` of Adam on signs, 1 - cosine of the gradients plus `smooth` times total variation."""
    descent = _Descent(sight, rng)
    optimizer = torch.optim.Adam([descent.guess], lr=lr)
    falls = [round(steps * part) for part in (0.375, 0.625, 0.875)]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=falls, gamma=0.1)
    with threadpool_limits(1):
        for _ in range(steps):
            optimizer.zero_grad()
            angle = 1 - torch.nn.functional.cosine_similarity(descent.gradient(), descent.seen, dim=0)
            loss = angle + smooth * _variation(descent.pictures())
            loss.backward()  # type: ignore[no-untyped-call]
            descent.noted(loss)
            assert descent.guess.grad is not None, "the loss depends on the guess"
            descent.guess.grad.sign_()
            optimizer.step()
            schedule.step()
            descent.put_into_range()
    return descent.best()


class _Descent:
    """A guess under way: its update by the client's own steps, and the best guess so far."""

    def __init__(self, sight: Sight, rng: np.random.Generator) -> None:
        self._sight = sight
        self._module = sight.model.module(sight.start)
        self._names = [name for name, _ in self._module.named_parameters()]
        self._center, self._unit = (torch.tensor(a, dtype=torch.float32) for a in (sight.center, sight.unit))
        self._labels = torch.tensor(sight.labels)
        # Searched where the model sees it, as pixels that hardly vary are magnified there.
        first = rng.standard_normal((len(sight.labels), *sight.center.shape))
        self.guess = torch.tensor(first, dtype=torch.float32, requires_grad=True)
        seen = torch.tensor(-sight.update / (sight.lr * sight.steps), dtype=torch.float32)
        self._length = seen.norm().clamp_min(1e-12)
        self.seen = seen / self._length  # as long as 1, so that one setting fits updates of any length
        self._first: float | None = None
        self._least, self._kept = float("inf"), self.guess.detach().clone()

    def gradient(self) -> torch.Tensor:
        """The mean gradient (d,) of the client's steps over the guess, in the measure of `seen`."""
        rows = self.guess
        start: list[Any] = [p.detach().requires_grad_() for p in self._module.parameters()]
        now = start
        for _ in range(self._sight.steps):
            out = torch.func.functional_call(self._module, dict(zip(self._names, now, strict=True)), (rows,))
            loss = torch.nn.functional.cross_entropy(out, self._labels)
            slopes = torch.autograd.grad(loss, now, create_graph=True)
            now = [p - self._sight.lr * slope for p, slope in zip(now, slopes, strict=True)]
        moved = torch.cat([(a - b).reshape(-1) for a, b in zip(start, now, strict=True)])
        mean: torch.Tensor = moved / (self._sight.lr * self._sight.steps * self._length)
        return mean

    def pictures(self) -> torch.Tensor:
        """The guess as pictures, not yet cut to [0, 1]."""
        return self.guess * self._unit + self._center

    def put_into_range(self) -> None:
        """Cut the guess to what pictures in [0, 1] can be."""
        with torch.no_grad():
            low, high = -self._center / self._unit, (1 - self._center) / self._unit
            self.guess.copy_(torch.minimum(torch.maximum(self.guess, low), high))

    def noted(self, loss: torch.Tensor) -> torch.Tensor:
        """`loss`, remembered with the guess if it is the least so far."""
        value = float(loss.detach())
        self._first = value if self._first is None else self._first
        if value < self._least:
            self._least, self._kept = value, self.guess.detach().clone()
        return loss

    def best(self) -> Recovered:
        """The guess with the least loss."""
        assert self._first is not None, "at least one step was taken"
        found = self._kept.numpy().astype(np.float64) * self._sight.unit + self._sight.center
        return Recovered(np.clip(found, 0, 1), self._first, self._least)


def _variation(pictures: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of neighbouring pixels (n, height, width)."""
    down = (pictures[:, 1:] - pictures[:, :-1]).abs().mean()
    across = (pictures[:, :, 1:] - pictures[:, :, :-1]).abs().mean()
    return down + across
