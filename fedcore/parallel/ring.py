"""Our own all-reduce: the moves of `schedule`, over any way to send to the next rank and get from the one before."""

from typing import Protocol

import torch

from fedcore.parallel.schedule import chunks, moves


class Neighbours(Protocol):
    """A place in a ring of `size` ranks."""

    rank: int
    size: int

    def exchange(self, out: torch.Tensor, into: torch.Tensor) -> None:
        """Send `out` (m,) to the next rank while `into` (k,) is filled by the rank before; neither if it is empty."""
        ...


def ring_all_reduce(values: torch.Tensor, neighbours: Neighbours) -> None:
    """Replace `values` (d,) by the sum over all ranks, in place: the same bytes at every rank.

    Any d, 0 included, and any number of ranks; each adds in the type of `values`. The sum differs from
    the exact one by at most ``(ranks - 1) · ε · Σ|values|`` in each coordinate.
    """
    parts = [values[part] for part in chunks(len(values), neighbours.size)]
    arrived = torch.empty_like(max(parts, key=len))
    for send, receive, add in moves(neighbours.rank, neighbours.size):
        own = parts[receive]
        into = arrived[: len(own)] if add else own
        neighbours.exchange(parts[send], into)
        if add:
            own += into
