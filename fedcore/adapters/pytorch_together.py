"""Local SGD of many clients in one computation, by ``torch.func``: each from the same model, on its own batches.

The arithmetic is that of `TorchModel.train`; only the loop over clients is inside the operations, so results differ
by rounding alone. Shorter batches are filled up with rows of weight 0, and a client that is through its batches stays
where it is while others go on.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.func import functional_call, grad_and_value, vmap

from fedcore.adapters.factory import first_line
from fedcore.adapters.model import ModelSpec, Training
from fedcore.adapters.pytorch import TorchModel
from fedcore.errors import BadConfig
from fedcore.types import Updates, Vector

Tensors = tuple[torch.Tensor, ...]


class Member(NamedTuple):
    """A client's rows on the device, the batches of its epochs, and its settings."""

    x: torch.Tensor
    y: torch.Tensor
    epochs: Sequence[Sequence[NDArray[np.intp]]]
    settings: Training


class Together:
    """Clients of one model that train side by side on `device`. Raises `BadConfig` for a device that is not there."""

    def __init__(self, model: TorchModel, device: str) -> None:
        self._model, self.device = model, _usable(device)
        self._sizes = [int(np.prod(shape)) for shape in model.layout.shapes]
        self._module = model.module(np.zeros(sum(self._sizes), np.float32)).to(self.device)
        self._names = [name for name, _ in self._module.named_parameters()]
        self._descend = vmap(grad_and_value(self._loss), randomness="different")

    def obstacle(self) -> str | None:
        """Why this model cannot be trained for several clients at once on the device; None if it can.

        On the processor, whose sums are exact enough to tell, two clients' gradients on batches with a row to spare are
        held against those of each alone, without what the model draws in training.
        """
        parameters, rows, labels, weight = self._trial()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)  # torch warns where it would loop over clients
                together, _ = self._descend(parameters, rows, labels, weight)
        except (RuntimeError, ValueError, TypeError, UserWarning) as error:
            return first_line(error)
        for i in range(2 if self.device.type == "cpu" else 0):
            own = tuple(part[i] for part in parameters)
            alone, _ = grad_and_value(self._loss)(own, rows[i, :2], labels[i, :2], weight[i, :2])
            if not all(
                torch.allclose(a[i], b, rtol=1e-3, atol=1e-5) for a, b in zip(together, alone, strict=True)
            ):
                return "its rows see one another, so that a batch cannot be filled up"
        return None

    def _trial(self) -> tuple[Tensors, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Parameters, rows, labels and weights of two clients with two rows each and a third that does not count."""
        spec, rng = self._model.spec, np.random.default_rng(0)
        x = rng.normal(size=(2, 3, *spec.input_shape)).astype(np.float32)
        if spec.tokens:
            x = rng.integers(spec.tokens, size=x.shape).astype(np.float32)
        vectors = rng.normal(0, 0.1, (2, sum(self._sizes))).astype(np.float32)
        weight = torch.tensor([[0.5, 0.5, 0.0]] * 2, device=self.device)
        return self._parts(self.put(vectors)), self.put(x), torch.zeros(2, 3, device=self.device), weight

    def train(
        self, vector: Vector, members: Sequence[Member], seed: int
    ) -> tuple[Updates, NDArray[np.float64]]:
        """Each member's update (m, d), trained minus `vector` (d,), and its mean loss over the last epoch (m,).

        What the model draws at random, such as dropout, follows `seed`.
        """
        batches = [[batch for epoch in member.epochs for batch in epoch] for member in members]
        order = np.argsort([-len(own) for own in batches], kind="stable")
        members, batches = [members[i] for i in order], [batches[i] for i in order]
        lengths = _lengths(batches)
        index, weight = self._batches(members, batches, lengths)
        x, y = torch.cat([member.x for member in members]), torch.cat([member.y for member in members])
        start = self._parts(self.put(vector)[None])
        parameters = tuple(part.repeat(len(members), *[1] * (part.dim() - 1)) for part in start)
        settings = members[0].settings
        given = [c for member in members if (c := member.settings.correction) is not None]
        corrections = self._parts(self.put(np.stack(given))) if given else None
        step = _Steps(parameters, start, corrections, settings)
        losses = torch.zeros(lengths.shape, device=self.device)
        self._module.train()
        with self._random(seed):
            for s, most in enumerate(lengths.max(axis=0, initial=0)):
                k = int((lengths[:, s] > 0).sum())
                rows = index[:k, s, :most]
                now = tuple(part[:k] for part in parameters)
                slopes, losses[:k, s] = self._descend(now, x[rows], y[rows], weight[:k, s, :most])
                step(k, slopes)
        back = np.argsort(order)
        updates = torch.cat(
            [(part - first).reshape(len(members), -1) for part, first in zip(parameters, start, strict=True)],
            dim=1,
        )
        return self._taken(updates[torch.from_numpy(back).to(self.device)]), _means(members, losses, lengths)[
            back
        ]

    def scores(self, vector: Vector, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The model's scores of rows: see `fedcore.adapters.model.Model`."""
        parameters = dict(
            zip(self._names, (part[0] for part in self._parts(self.put(vector)[None])), strict=True)
        )
        self._module.eval()
        with torch.no_grad():
            parts = [
                self._model.activate(functional_call(self._module, parameters, (self.put(x[i : i + 8192]),)))
                for i in range(0, max(len(x), 1), 8192)
            ]
        return torch.cat(parts).cpu().numpy()

    def _loss(
        self, parameters: Tensors, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor
    ) -> torch.Tensor:
        """The weighted sum of one client's losses."""
        out = functional_call(self._module, dict(zip(self._names, parameters, strict=True)), (x,))
        return (_losses(self._model.spec, out, y) * weight).sum()

    def _parts(self, vectors: torch.Tensor) -> Tensors:
        """Vectors (m, d) as one tensor (m, …) for each of the layout."""
        cut = torch.split(vectors, self._sizes, dim=1)
        shapes = self._model.layout.shapes
        return tuple(part.reshape(len(vectors), *shape) for part, shape in zip(cut, shapes, strict=True))

    def _batches(
        self,
        members: Sequence[Member],
        batches: Sequence[Sequence[NDArray[np.intp]]],
        lengths: NDArray[np.int64],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Row numbers (m, steps, width) among all members' rows, and what each row weighs in its batch's mean."""
        first = np.cumsum([0, *(len(member.y) for member in members)])
        index = np.repeat(first[:-1], lengths.shape[1] * lengths.max(initial=0))
        index = index.reshape(*lengths.shape, lengths.max(initial=0))
        weight = np.zeros(index.shape, np.float32)
        for i, own in enumerate(batches):
            for s, batch in enumerate(own):
                index[i, s, : len(batch)] = first[i] + batch
                weight[i, s, : len(batch)] = 1 / len(batch)
        return self.put(index), self.put(weight)

    def put(self, array: NDArray[Any]) -> torch.Tensor:
        """The array on the device."""
        return torch.from_numpy(np.require(array, requirements=["C", "W"])).to(self.device)

    def _taken(self, updates: torch.Tensor) -> Updates:
        """Updates in memory of this machine; locked while they come from a GPU, which is five times as fast."""
        if self.device.type != "cuda":
            return updates.cpu().numpy()
        space = torch.empty(updates.shape, pin_memory=True)
        return space.copy_(updates).numpy()

    @contextmanager
    def _random(self, seed: int) -> Iterator[None]:
        """Draws that follow `seed`; the global generators are as before afterwards."""
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield


class _Steps:
    """Steps of SGD of the first k members, in place, as `Training` says: one set of settings but for corrections."""

    def __init__(
        self, parameters: Tensors, anchor: Tensors, corrections: Tensors | None, settings: Training
    ) -> None:
        self._parameters, self._anchor, self._corrections = parameters, anchor, corrections
        self._settings = settings
        self._velocity = [torch.zeros_like(part) for part in parameters] if settings.momentum else None

    def __call__(self, k: int, slopes: Tensors) -> None:
        """A step along `slopes`, which may be changed."""
        settings = self._settings
        for i, slope in enumerate(slopes):
            own = self._parameters[i][:k]
            if settings.weight_decay:
                slope.add_(own, alpha=settings.weight_decay)
            if self._corrections is not None:
                slope.add_(self._corrections[i][:k])
            if settings.proximal:
                slope.add_(own - self._anchor[i], alpha=settings.proximal)
            if self._velocity is not None:
                own.sub_(self._velocity[i][:k].mul_(settings.momentum).add_(slope), alpha=settings.lr)
            else:
                own.sub_(slope, alpha=settings.lr)


def _losses(spec: ModelSpec, out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Each row's loss (n,): squared error, logistic, or cross-entropy."""
    functional = torch.nn.functional
    if spec.task == "regression":
        center, scale = spec.target
        return functional.mse_loss(out[:, 0], (y - center) / scale, reduction="none")
    if spec.outputs == 1:
        return functional.binary_cross_entropy_with_logits(out[:, 0], y, reduction="none")
    return functional.cross_entropy(out, y.long(), reduction="none")


def _lengths(batches: Sequence[Sequence[NDArray[np.intp]]]) -> NDArray[np.int64]:
    """How many rows each batch of each member has (m, steps); 0 where a member has no more."""
    found = np.zeros((len(batches), max(map(len, batches), default=0)), np.int64)
    for i, own in enumerate(batches):
        found[i, : len(own)] = [len(batch) for batch in own]
    return found


def _means(
    members: Sequence[Member], losses: torch.Tensor, lengths: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Each member's mean loss over the rows of its last epoch."""
    weighed, found = losses.cpu().numpy().astype(np.float64) * lengths, np.zeros(len(members))
    for i, member in enumerate(members):
        end = sum(map(len, member.epochs))
        last = slice(end - len(member.epochs[-1]), end)
        found[i] = weighed[i, last].sum() / lengths[i, last].sum()
    return found


def _usable(device: str) -> torch.device:
    found = torch.device(device)
    if found.type == "cuda" and not torch.cuda.is_available():
        raise BadConfig("run.device", device, "is not there: torch sees no GPU; use cpu")
    return found
