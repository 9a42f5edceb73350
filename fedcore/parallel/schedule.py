"""Who sends which part of a vector when, so that all ranks of a ring end with the sum; pure, no I/O.

Patarasu and Yuan 2009, "Bandwidth optimal all-reduce algorithms for clusters of workstations":
in ``world - 1`` moves each chunk goes once around the ring and is added up (reduce-scatter), in as
many more the sums go around (all-gather). Each rank sends ``2 · (world - 1) / world`` of the vector.
"""

from typing import NamedTuple


class Move(NamedTuple):
    """One move of one rank: the chunk it sends to the next rank, and the one it gets from the rank before.

    `add` says whether what comes is added to the rank's own chunk, or replaces it.
    """

    send: int
    receive: int
    add: bool


def chunks(size: int, world: int) -> list[slice]:
    """`world` slices that cover ``range(size)`` in order, their lengths equal or one apart; some are empty if size < world.

    >>> [part.stop - part.start for part in chunks(5, 3)]
    [1, 2, 2]
    """
    bounds = [size * i // world for i in range(world + 1)]
    return [slice(start, stop) for start, stop in zip(bounds, bounds[1:], strict=False)]


def moves(rank: int, world: int) -> list[Move]:
    """The moves of `rank`, in order; none in a world of one.

    Chunk c is added up in the order of ranks c, c + 1, …, whoever asks: all ranks get the same bytes.

    >>> moves(0, 2)
    [Move(send=0, receive=1, add=True), Move(send=1, receive=0, add=False)]
    """
    scatter = [Move((rank - i) % world, (rank - i - 1) % world, True) for i in range(world - 1)]
    gather = [Move((rank - i + 1) % world, (rank - i) % world, False) for i in range(world - 1)]
    return scatter + gather
