"""Laws of the partitioners: every row once, nobody too small, the same seed the same clients."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fedcore.config import PartitionConfig
from fedcore.data.partitioners import PARTITIONERS, dirichlet, draw, few_labels, iid, quantity
from fedcore.errors import BadInput

LABELS = np.random.default_rng(5).integers(0, 10, 2000).astype(np.str_)


def config(scheme: Any, **changes: Any) -> PartitionConfig:
    return PartitionConfig(scheme=scheme, **({"clients": 8, "alpha": 1.0, "labels_per_client": 3} | changes))


@pytest.mark.parametrize("scheme", PARTITIONERS)
@given(seed=st.integers(0, 2**32), clients=st.integers(4, 20))
@settings(deadline=None, max_examples=25)
def test_every_row_goes_to_exactly_one_client_and_nobody_is_too_small(
    scheme: str, seed: int, clients: int
) -> None:
    parts = draw(LABELS, config(scheme, clients=clients), seed)
    assert len(parts) == clients
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(LABELS)))
    assert min(map(len, parts)) >= 10


@pytest.mark.parametrize("scheme", PARTITIONERS)
def test_the_seed_alone_decides(scheme: str) -> None:
    first, again, other = (draw(LABELS, config(scheme), seed) for seed in (3, 3, 4))
    assert all(map(np.array_equal, first, again))
    assert not all(map(np.array_equal, first, other))


@given(st.integers(0, 2**32), st.integers(1, 10), st.integers(10, 30))
@settings(deadline=None, max_examples=25)
def test_each_client_has_exactly_its_number_of_labels(seed: int, each: int, clients: int) -> None:
    parts = few_labels(LABELS, clients, np.random.default_rng(seed), labels_per_client=each)
    assert {len(np.unique(LABELS[rows])) for rows in parts} == {each}


@given(st.integers(0, 2**32), st.integers(2, 10), st.integers(2, 30))
@settings(deadline=None, max_examples=25)
def test_every_label_has_an_owner_whoever_is_fewer(seed: int, each: int, clients: int) -> None:
    assume(clients * each >= 10)
    parts = few_labels(LABELS, clients, np.random.default_rng(seed), labels_per_client=each)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(2000))


def test_clients_have_the_labels_that_are_given_and_share_them_equally() -> None:
    given_labels = ((0, 1), (2, 3, 4), (5, 6, 7, 8, 9), (0, 9))
    parts = draw(LABELS, config("labels", clients=4, labels_of_clients=given_labels), 3)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(2000))
    assert [tuple(np.unique(LABELS[rows]).astype(int)) for rows in parts] == list(given_labels)
    for shared, owners in ((0, (0, 3)), (9, (2, 3))):
        sizes = [int((LABELS[parts[owner]] == str(shared)).sum()) for owner in owners]
        assert max(sizes) - min(sizes) <= 1
    other = draw(LABELS, config("labels", clients=4, labels_of_clients=given_labels), 4)
    assert not np.array_equal(parts[0], other[0])


def test_labels_of_a_client_are_drawn_and_not_the_same_for_several() -> None:
    """Dealt in turn, ten clients with two of ten labels each would be five pairs of twins that share with nobody else."""
    found = []
    for seed in range(20):
        parts = few_labels(LABELS, 10, np.random.default_rng(seed), labels_per_client=2)
        found.append(len({tuple(np.unique(LABELS[rows])) for rows in parts}))
    assert min(found) > 5
    assert np.mean(found) > 8  # of 10; two clients draw the same pair with chance 1/45 or so


def test_a_large_alpha_is_nearly_iid_and_a_small_one_is_not() -> None:
    def spread(alpha: float) -> float:
        parts = dirichlet(LABELS, 5, np.random.default_rng(1), alpha=alpha)
        shares = [[np.mean(LABELS[rows] == label) for label in np.unique(LABELS)] for rows in parts]
        return float(np.std(shares, axis=0).mean())

    assert spread(1000) < 0.02 < 0.1 < spread(0.3)


def test_quantity_skews_sizes_and_not_labels() -> None:
    sizes = sorted(map(len, quantity(LABELS, 8, np.random.default_rng(2), alpha=0.3, min_rows=20)))
    assert sizes[0] >= 20
    assert sizes[-1] > 5 * sizes[0]
    assert {len(rows) for rows in iid(LABELS, 8, np.random.default_rng(2))} == {250}


def test_one_client_gets_everything() -> None:
    for scheme in PARTITIONERS:
        parts = draw(LABELS, config(scheme, clients=1, labels_per_client=10), 1)
        np.testing.assert_array_equal(parts[0], np.arange(2000))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"scheme": "iid", "clients": 300},
            "min_rows 10 cannot be met by 300 clients of 2000 rows under any split",
        ),
        (
            {"scheme": "dirichlet", "alpha": 0.01, "clients": 30},
            "under alpha 0.01; raise data.partition.alpha, or lower",
        ),
        ({"scheme": "labels", "labels_per_client": 11}, "must be at most 10, the classes there are, got 11"),
        ({"scheme": "labels", "labels_per_client": 1}, "leave some of the 10 classes without an owner"),
        ({"scheme": "labels", "labels_per_client": 2, "clients": 100, "min_rows": 19}, "under 2 labels each"),
        (
            {"scheme": "labels", "clients": 3, "labels_of_clients": ((0,), (1,))},
            "data.partition.labels_of_clients: must name the classes of 3 clients (data.partition.clients), got 2",
        ),
        (
            {"scheme": "labels", "clients": 2, "labels_of_clients": ((0,), ())},
            "leaves a client without a class",
        ),
        (
            {"scheme": "labels", "clients": 2, "labels_of_clients": ((0,), (10,))},
            "must number classes from 0 to 9, got 10",
        ),
        (
            {"scheme": "labels", "clients": 2, "labels_of_clients": (tuple(range(9)), (0,))},
            "leaves class 9 without an owner",
        ),
        (
            {
                "scheme": "labels",
                "clients": 2,
                "min_rows": 500,
                "labels_of_clients": (tuple(range(9)), (9, 8)),
            },
            "under the labels given; give fewer clients the same label",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInput) as refusal:
        draw(LABELS, config(**changes), 1)
    assert sentence in str(refusal.value)
