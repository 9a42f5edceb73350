"""The processes of one training: how they find each other, talk, and end together when one is lost.

Messages go over gloo between processors and over nccl between CUDA devices. What a process may
wait for another is bounded everywhere; whoever waits longer, or sees a connection close, raises `PeerLost`.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from fedcore.errors import BadInput, PeerLost
from fedcore.parallel.ring import ring_all_reduce
from fedcore.types import Vector, vector_sha256

PLACE = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Place:
    """What torchrun says of this process: its rank of `size`, and whether it is the first on its machine."""

    rank: int
    size: int
    local_rank: int
    machine: int

    @property
    def first(self) -> bool:
        """Whether this process prepares the data of its machine, and speaks for it."""
        return self.local_rank == 0


def place() -> Place:
    """This process's place, (0 of 1) where torchrun did not start it. Raises `BadInput` for half an environment."""
    if not any(name in os.environ for name in PLACE[:2]):
        return Place(0, 1, 0, 0)
    absent = [name for name in PLACE if name not in os.environ]
    if absent:
        raise BadInput(f"{absent[0]} is not set beside the others of {', '.join(PLACE)}; start with torchrun")
    try:
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        local, machine = int(os.environ.get("LOCAL_RANK", rank)), int(os.environ.get("GROUP_RANK", "0"))
    except ValueError as error:
        raise BadInput(f"torchrun's environment holds no number ({error}); start with torchrun") from None
    if not 0 <= rank < size:
        raise BadInput(f"RANK must be from 0 to WORLD_SIZE - 1, got {rank} of {size}; start with torchrun")
    return Place(rank, size, local, machine)


class World:
    """The processes that train together, as one of them sees them: a `Neighbours` of the ring.

    `backend` is what carries a sum (``gloo``, ``nccl``, ``none`` in a world of one), `device` where it is computed.
    """

    def __init__(self, rank: int, size: int, device: torch.device, timeout_s: float) -> None:
        self.rank, self.size, self.device, self._timeout_s = rank, size, device, timeout_s
        self.backend = "none" if size == 1 else "nccl" if device.type == "cuda" else "gloo"

    def exchange(self, out: torch.Tensor, into: torch.Tensor) -> None:
        """Send to the next rank while the one before fills `into`: see `Neighbours`."""
        after, before = (self.rank + 1) % self.size, (self.rank - 1) % self.size
        asked = [dist.P2POp(dist.irecv, into, before)] if len(into) else []
        asked += [dist.P2POp(dist.isend, out, after)] if len(out) else []
        with self._bounded(f"rank {before} or {after}"):
            for work in dist.batch_isend_irecv(asked) if asked else ():
                work.wait()

    def all_reduce(self, values: torch.Tensor) -> None:
        """The library's all-reduce: `values` (d,) becomes the sum over all ranks, in place."""
        if self.size > 1:
            with self._bounded("another rank"):
                dist.all_reduce(values)

    def agree(self, what: str, text: str) -> None:
        """Return if `text` is the same at all ranks. Raises `BadInput` with the ranks whose `what` differs from rank 0's."""
        if self.size == 1:
            return
        own = torch.tensor(list(hashlib.sha256(text.encode()).digest()), dtype=torch.uint8)
        found = [torch.empty_like(own) for _ in range(self.size)]
        with self._bounded("another rank"):
            dist.all_gather(found, own)
        odd = [rank for rank, seen in enumerate(found) if not torch.equal(seen, found[0])]
        if odd:
            raise BadInput(
                f"rank {odd[0]} holds another {what} than rank 0; start all ranks with the same command, "
                "parameters, data and versions"
            )

    def agree_on_vector(self, vector: Vector) -> None:
        """Return if all ranks hold the same bytes. Raises `BadInput`."""
        self.agree("model after the same steps", vector_sha256(vector))

    def from_first(self, values: torch.Tensor) -> None:
        """Overwrite `values` with rank 0's."""
        if self.size > 1:
            with self._bounded("rank 0"):
                dist.broadcast(values, 0)

    def send(self, values: torch.Tensor, to: int) -> None:
        """Send `values`, which nobody may write before this returns, to a rank."""
        with self._bounded(f"rank {to}"):
            dist.send(values, to)

    def receive(self, into: torch.Tensor, source: int | None = None) -> int:
        """Fill `into` by what a rank sent (None: whoever was first); who it was."""
        with self._bounded("a worker" if source is None else f"rank {source}"):
            return int(dist.recv(into, source))

    @contextmanager
    def _bounded(self, who: str) -> Iterator[None]:
        """Turn a closed connection, or one that was silent for too long, into `PeerLost`."""
        try:
            yield
        except RuntimeError as error:
            raise PeerLost(self.rank, who, self._timeout_s, reason(error)) from None


def reason(error: Exception) -> str:
    """What a library said, in its first words."""
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return line.rpartition("] ")[2][:120].rstrip(". ")


@contextmanager
def joined(
    here: Place,
    prepare: Callable[[], None],
    join_s: float = 600.0,
    timeout_s: float = 60.0,
    sums: bool = True,
) -> Iterator[World]:
    """The world of this process, left at the end.

    The first process of each machine runs `prepare` while the others wait up to `join_s` seconds; from
    then on nobody waits longer than `timeout_s`. `sums` asks for nccl where every process of the machine has a
    CUDA device. Raises `PeerLost` if somebody does not come.
    """
    if here.size == 1:
        prepare()
        yield World(0, 1, torch.device("cpu"), timeout_s)
        return
    device = device_of(here) if sums else torch.device("cpu")
    try:
        store, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=join_s)))
        if here.first:
            prepare()
            store.set(f"prepared/{here.machine}", "1")
        store.wait([f"prepared/{here.machine}"], timedelta(seconds=join_s))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=PrefixStore("fedcore", store),
            rank=here.rank,
            world_size=here.size,
            timeout=timedelta(seconds=timeout_s),
        )
    except RuntimeError as error:
        raise PeerLost(here.rank, f"one of {here.size} processes", join_s, reason(error)) from None
    try:
        yield World(here.rank, here.size, device, timeout_s)
    finally:
        dist.destroy_process_group()


def device_of(here: Place) -> torch.device:
    """This process's own CUDA device, or the processor where there are fewer devices than processes."""
    here_too = int(os.environ.get("LOCAL_WORLD_SIZE", here.size))
    if torch.cuda.is_available() and torch.cuda.device_count() >= here_too:
        return torch.device("cuda", here.local_rank)
    return torch.device("cpu")


REDUCES: dict[str, Callable[[torch.Tensor, World], None]] = {
    "ring": ring_all_reduce,
    "library": lambda values, world: world.all_reduce(values),
}
