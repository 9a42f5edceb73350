"""The ring's laws: every rank ends with the sum, in the same bytes, for any size and any number of ranks."""

from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from queue import SimpleQueue

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedcore.parallel.ring import ring_all_reduce
from fedcore.parallel.schedule import chunks, moves

sizes, worlds = st.integers(0, 40), st.integers(1, 9)


@given(sizes, worlds)
def test_chunks_cover_the_vector_once_and_differ_by_one_at_most(size, world):
    parts = chunks(size, world)
    assert [i for part in parts for i in range(size)[part]] == list(range(size))
    lengths = [part.stop - part.start for part in parts]
    assert len(parts) == world
    assert max(lengths) - min(lengths) <= 1


@given(worlds)
def test_what_a_rank_sends_is_what_the_next_one_waits_for(world):
    plans = [moves(rank, world) for rank in range(world)]
    for rank, plan in enumerate(plans):
        following = plans[(rank + 1) % world]
        assert [move.send for move in plan] == [move.receive for move in following]
        assert len(plan) == 2 * (world - 1)


@given(worlds)
def test_each_chunk_is_added_up_once_from_every_rank(world):
    held = [[{rank} for _ in range(world)] for rank in range(world)]
    for i in range(2 * (world - 1)):
        plans = [moves(rank, world)[i] for rank in range(world)]
        arriving = [held[(rank - 1) % world][plan.receive].copy() for rank, plan in enumerate(plans)]
        for rank, (plan, comes) in enumerate(zip(plans, arriving, strict=True)):
            assert not (plan.add and comes & held[rank][plan.receive]), "a rank's part would count twice"
            held[rank][plan.receive] = comes | held[rank][plan.receive] if plan.add else comes
    assert all(part == set(range(world)) for rank in held for part in rank)


class Threads:
    """A ring of threads: each rank's inbox is a queue."""

    def __init__(self, rank, inboxes):
        self.rank, self.size, self._inboxes, self.sent = rank, len(inboxes), inboxes, 0

    def exchange(self, out, into):
        self.sent += len(out)
        if len(out):
            self._inboxes[(self.rank + 1) % self.size].put(out.clone())
        if len(into):
            into.copy_(self._inboxes[self.rank].get(timeout=30))


def summed(vectors):
    """What each rank holds after the ring, and how many numbers each sent."""
    inboxes = [SimpleQueue() for _ in vectors]
    ranks = [Threads(rank, inboxes) for rank in range(len(vectors))]
    held = [torch.from_numpy(vector.copy()) for vector in vectors]
    with ThreadPoolExecutor(len(vectors)) as pool:
        list(pool.map(ring_all_reduce, held, ranks))
    return [tensor.numpy() for tensor in held], [rank.sent for rank in ranks]


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [0, 1, 2, 4, 7, 1001])
def test_every_rank_ends_with_the_sum_in_the_same_bytes(rng, world, size):
    vectors = [rng.normal(0, 10.0 ** rng.integers(-3, 4), size).astype(np.float32) for _ in range(world)]
    held, _ = summed(vectors)
    assert len({vector.tobytes() for vector in held}) == 1
    for i in range(size):
        exact = sum(Fraction(float(vector[i])) for vector in vectors)
        scale = sum(abs(Fraction(float(vector[i]))) for vector in vectors)
        bound = (world - 1) * Fraction(float(np.finfo(np.float32).eps)) * scale
        assert abs(Fraction(float(held[0][i])) - exact) <= bound


@given(st.integers(0, 30), st.integers(1, 6))
def test_whole_numbers_come_out_exact_and_no_rank_sends_more_than_twice_the_vector(size, world):
    vectors = [np.arange(size, dtype=np.float64) * (rank + 1) for rank in range(world)]
    held, sent = summed(vectors)
    expected = np.arange(size, dtype=np.float64) * (world * (world + 1) // 2)
    assert all(np.array_equal(vector, expected) for vector in held)
    assert all(numbers <= 2 * (world - 1) * (size // world + 1) for numbers in sent)
