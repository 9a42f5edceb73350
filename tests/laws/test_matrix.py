"""Correlated noise: the stream is the matrix, no client moves more than is said, and less noise stays."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcore.errors import BadInput, UnknownName
from fedcore.transforms.matrix import banded, correlated, square_root, tree

MECHANISMS = ["banded", "tree"]


def matrix(noise):
    """C, from the rows of its inverse."""
    undone = np.zeros((noise.rounds, noise.rounds))
    for t in range(noise.rounds):
        undone[t, : t + 1] = noise.row(t)
    return np.linalg.inv(undone)


def prefix(noise):
    """A C⁻¹, what the prefix sums hold of each z."""
    return np.cumsum(np.linalg.inv(matrix(noise)), axis=0)


def patterns(rounds, apart, k):
    """All ways to take part at most `k` times, any two rounds at least `apart` apart."""
    for times in range(1, k + 1):
        for chosen in combinations(range(rounds), times):
            if all(after - before >= apart for before, after in zip(chosen, chosen[1:], strict=False)):
                yield list(chosen)


def furthest(noise, apart, k):
    """The most that one client of updates of +1 and −1 moves C x."""
    c = matrix(noise)
    return max(
        np.linalg.norm(c[:, chosen] @ signs)
        for chosen in patterns(noise.rounds, apart, k)
        for signs in product([1.0, -1.0], repeat=len(chosen))
    )


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("rounds", [1, 2, 5, 8, 9])
@pytest.mark.parametrize("bands", [1, 2, 3, 4, 9])
def test_no_client_moves_the_release_by_more_than_the_sensitivity(mechanism, rounds, bands):
    noise = correlated(mechanism, rounds, bands)
    for k in range(1, noise.most + 1):
        assert furthest(noise, bands, k) <= noise.sensitivity(k) * (1 + 1e-12)


@given(st.sampled_from(MECHANISMS), st.integers(1, 24), st.integers(1, 8), st.data())
def test_nor_does_a_client_whose_updates_point_anywhere(mechanism, rounds, bands, data):
    noise = correlated(mechanism, rounds, bands)
    gaps = data.draw(st.lists(st.integers(bands, rounds + bands), min_size=1, max_size=noise.most))
    chosen = [t for t in np.cumsum(gaps) - bands if t < rounds] or [0]
    directions = np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=(len(chosen), 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    moved = np.linalg.norm(matrix(noise)[:, chosen] @ directions)
    assert moved <= noise.sensitivity(len(chosen)) * (1 + 1e-12)


@pytest.mark.parametrize(("rounds", "bands", "k"), [(9, 3, 3), (8, 4, 2), (7, 7, 1), (5, 1, 5)])
def test_a_banded_sensitivity_is_reached(rounds, bands, k):
    noise = banded(rounds, bands)
    assert furthest(noise, bands, k) == pytest.approx(noise.sensitivity(k))


@pytest.mark.parametrize("rounds", [1, 2, 3, 4, 7, 8, 9])
def test_a_trees_sensitivity_to_one_round_is_reached(rounds):
    assert furthest(tree(rounds, 1), 1, 1) == pytest.approx(tree(rounds, 1).sensitivity(1))


def test_rounds_closer_than_the_bands_would_break_the_bound():
    """The condition of the proof is needed, and the search above would have found it missing."""
    noise = banded(8, 4)
    assert furthest(noise, 1, 2) > noise.sensitivity(2)


def test_taking_part_more_often_than_there_is_room_for_costs_nothing():
    for mechanism in MECHANISMS:
        noise = correlated(mechanism, 10, 4)
        assert noise.most == 3
        assert noise.sensitivity(99) == noise.sensitivity(3) > noise.sensitivity(2)


@given(st.sampled_from(MECHANISMS), st.integers(1, 40), st.integers(1, 12))
def test_the_noise_of_the_stream_is_that_of_the_matrix(mechanism, rounds, bands):
    noise, z = correlated(mechanism, rounds, bands), np.random.default_rng(0).normal(size=(rounds, 3))
    memory = noise.start(3)
    for t in range(rounds):
        before = memory.copy()
        added, after = noise.step(t, z[t], memory)
        np.testing.assert_allclose(added, noise.row(t) @ z[: t + 1], atol=1e-9)
        np.testing.assert_array_equal(memory, before)
        assert after.shape == memory.shape
        memory = after


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize(("rounds", "bands"), [(1, 1), (16, 1), (16, 4), (21, 40)])
def test_the_variances_are_those_of_the_prefix_sums(mechanism, rounds, bands):
    noise = correlated(mechanism, rounds, bands)
    np.testing.assert_allclose(noise.variances, (prefix(noise) ** 2).sum(axis=1))


def test_bands_are_the_matrix_cut_and_all_of_them_its_root():
    c = matrix(banded(8, 3))
    assert not np.triu(c, 1).any()
    np.testing.assert_allclose(np.tril(c, -3), 0, atol=1e-12)
    np.testing.assert_allclose(np.diag(c, -2), 3 / 8)
    whole = matrix(banded(8, 8))
    np.testing.assert_allclose(whole @ whole, np.tril(np.ones((8, 8))))
    np.testing.assert_allclose(square_root(4), [1, 1 / 2, 3 / 8, 5 / 16])


def test_a_tree_is_made_of_nodes_that_prefix_sums_need():
    c = np.round(matrix(tree(8, 1)), 9)
    rows = ["".join(str(int(x)) for x in row) for row in c]
    assert rows == [
        "10000000",
        "11000000",
        "00100000",
        "11110000",
        "00001000",
        "00001100",
        "00000010",
        "11111111",
    ]
    assert set(np.unique(prefix(tree(8, 1))).tolist()) == {0.0, 1.0}


def test_one_band_is_independent_noise():
    noise = banded(6, 1)
    np.testing.assert_array_equal(matrix(noise), np.eye(6))
    assert noise.start(5).shape == (0, 5)
    assert noise.sensitivity(4) == 2.0


@pytest.mark.parametrize(
    ("mechanism", "rounds", "bands", "gain"),
    [
        ("banded", 256, 8, 2.0),
        ("banded", 256, 64, 8.0),
        ("banded", 1024, 1024, 80.0),
        ("tree", 1024, 1024, 9.0),
    ],
)
def test_at_equal_privacy_less_noise_stays_in_the_model_than_of_independent_rounds(
    mechanism, rounds, bands, gain
):
    """The worst variance over the prefix sums, clients taking part as often as `bands` lets them."""
    noise = correlated(mechanism, rounds, bands)
    worst = noise.variances.max() * noise.sensitivity(noise.most) ** 2
    assert worst * gain < rounds * noise.most


def test_what_a_stream_remembers_is_small():
    assert banded(1000, 8).start(10).shape == (7, 10)
    assert tree(1000, 8).start(10).shape == (10, 10)


def test_noise_that_cannot_be_made_is_refused():
    with pytest.raises(UnknownName, match="did you mean 'banded'"):
        correlated("bandet", 4, 2)
    for rounds, bands in ((0, 1), (3, 0)):
        with pytest.raises(BadInput, match="at least one round and one band"):
            correlated("tree", rounds, bands)
    with pytest.raises(BadInput, match="at least once"):
        tree(4, 1).sensitivity(0)
