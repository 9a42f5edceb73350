"""One of three ranks: what a test lets three processes do together. What it finds wrong ends it with a traceback.

Started by `runpy` with ``place`` (rank, ports, work directory, settings) among its globals.
"""

import os

import numpy as np
import torch

from fedcore.errors import PeerLost
from fedcore.parallel.__main__ import main
from fedcore.parallel.world import REDUCES, joined
from fedcore.parallel.world import place as found_place

rank, ports, workdir, settings = globals()["place"]
SIZE = 3


def enter() -> None:
    """Say, as torchrun would, where the next group meets."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(SIZE), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(ports.pop(0))}


def code(*arguments: str) -> int:
    enter()
    try:
        main([*settings, "--workdir", workdir, *arguments])
    except SystemExit as ended:
        return int(ended.code or 0)
    raise AssertionError("the command line ends by itself")


def rings_equal_the_library() -> None:
    enter()
    with joined(found_place(), lambda: None, 60, 60) as world:
        assert (world.backend, world.size) == ("gloo", SIZE)
        for size in (0, 1, 2, 3, 4, 10, 1000, 100_001):
            vectors = [np.random.default_rng(r).normal(size=size) for r in range(SIZE)]
            for name, reduce in REDUCES.items():
                values = torch.from_numpy(vectors[rank].copy())
                if size or name == "ring":
                    reduce(values, world)
                np.testing.assert_allclose(values.numpy(), sum(vectors), rtol=1e-12, atol=1e-12)
                world.agree(f"sum of {name}", values.numpy().tobytes().hex())


def a_lost_rank_is_noticed() -> None:
    enter()
    try:
        with joined(found_place(), lambda: None, 60, 60) as world:
            world.all_reduce(torch.ones(1))
            if rank == SIZE - 1:
                os._exit(9)
            REDUCES["ring"](torch.ones(1000), world)
    except PeerLost as lost:
        assert "start the same command again" in str(lost)  # noqa: PT017
    else:
        raise AssertionError(f"rank {rank} did not notice")


rings_equal_the_library()
assert code("--name", "ring") == 0
assert code("--name", "library", "--reduce", "library", "--json") == 0
assert code("--name", "late", "--mode", "async") == 0
assert code("--name", "odd", "-S", f"seed={1 + rank // 2}") == 2
assert code("--name", "wild", "--mode", "async", "--lr", "1e30") == 2
a_lost_rank_is_noticed()
