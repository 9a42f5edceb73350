"""Attacks on data change training rows only, and what a client learns from them."""

import numpy as np
import pytest

from fedcore.data.federated import SiteData
from fedcore.errors import BadInput
from fedcore.redteam import ATTACKS
from fedcore.redteam.data import TARGET, TRIGGER, triggered
from fedcore.types import Task

POISONS = sorted(name for name, found in ATTACKS.items() if found.poison)


@pytest.fixture
def site(rng):
    x = rng.random((60, 4, 4)).astype(np.float32)
    y = rng.integers(0, 10, 60).astype(np.float32)
    return SiteData(x[:40], y[:40], x[40:], y[40:])


def poisoned(name, site, classes=10):
    return ATTACKS[name].poison(site, classes, np.random.default_rng(1))


@pytest.mark.parametrize("name", POISONS)
def test_held_out_rows_and_what_was_given_stay_as_they_are(name, site):
    before = site.x_train.copy(), site.y_train.copy()
    changed = poisoned(name, site)
    np.testing.assert_array_equal(changed.x_test, site.x_test)
    np.testing.assert_array_equal(changed.y_test, site.y_test)
    np.testing.assert_array_equal(site.x_train, before[0])
    np.testing.assert_array_equal(site.y_train, before[1])
    assert changed.x_train.dtype == changed.y_train.dtype == np.float32
    assert (changed.y_train != site.y_train).any()


@pytest.mark.parametrize("name", POISONS)
def test_a_regression_is_refused_in_a_sentence(name, site):
    with pytest.raises(BadInput, match=f"attack {name} changes classes and a regression has none"):
        poisoned(name, site, classes=0)


def test_flipped_twice_is_honest(site):
    once = poisoned("label_flip", site)
    np.testing.assert_array_equal(once.y_train, 9 - site.y_train)
    np.testing.assert_array_equal(poisoned("label_flip", once).y_train, site.y_train)


def test_rows_with_the_trigger_and_only_they_are_of_the_target_class(site):
    changed = poisoned("backdoor", site)
    marked = (changed.x_train != site.x_train).any(axis=(1, 2))
    assert 5 < marked.sum() < 35
    assert (changed.y_train[marked] == TARGET).all()
    np.testing.assert_array_equal(changed.y_train[~marked], site.y_train[~marked])
    flat = changed.x_train[marked].reshape(marked.sum(), -1)
    assert (flat[:, :TRIGGER] >= site.x_train.max()).all()


def test_a_trigger_on_no_rows_is_no_rows():
    assert triggered(np.empty((0, 4, 4), np.float32), 1.0).shape == (0, 4, 4)


@pytest.mark.parametrize("name", POISONS)
def test_a_client_that_trains_on_poisoned_digits_moves_the_mean(name, arena):
    """Further than the same clients move it with their own rows."""
    vector = arena.model.init(np.random.default_rng(0))
    task = Task("train", "a", 0, vector, arena.features)
    replies = {reply.client: reply.vector for reply in arena.fleet.ask(task, arena.fleet.clients)}
    honest = np.stack([row for client, row in replies.items() if client not in arena.hostile])
    own = np.stack([replies[client] for client in arena.hostile])
    bad = np.stack([r.vector for r in arena.poisoned(ATTACKS[name]).ask(task, arena.hostile)])
    rows = ATTACKS[name].forge(honest, bad, rng=np.random.default_rng(0), aggregate=None)

    def moved(liars):
        return np.linalg.norm(np.concatenate([honest, liars]).mean(axis=0) - honest.mean(axis=0))

    assert moved(rows) > 1.5 * moved(own)
