"""Each attack is what its paper says, and moves the plain mean: an attack that does nothing proves nothing."""

import numpy as np
import pytest

from fedcore.errors import UnknownName
from fedcore.redteam import ATTACKS, attack
from fedcore.redteam.rows import alie_z
from fedcore.rules import rule

FORGERIES = sorted(name for name, found in ATTACKS.items() if found.poison is None and name != "non_finite")


def mean(rows):
    return rows.mean(axis=0, dtype=np.float64).astype(np.float32)


def forged(name, honest, own, aggregate=mean, seed=5, **options):
    return attack(name).forge(honest, own, rng=np.random.default_rng(seed), aggregate=aggregate, **options)


def length(vector):
    return float(np.linalg.norm(vector.astype(np.float64)))


@pytest.mark.parametrize("name", sorted(set(FORGERIES) - {"alie"}))
def test_it_moves_the_plain_mean_further_than_honest_clients_would(name, honest, own):
    def moved(rows):
        return length(mean(np.concatenate([honest, rows])) - mean(honest))

    rows = np.random.default_rng(9).standard_normal((200, *own.shape))
    usual = np.median([moved((1 + 0.3 * row).astype(np.float32)) for row in rows])
    assert moved(forged(name, honest, own)) > 1.05 * usual


def test_alie_moves_the_plain_mean_always_the_same_way_where_honest_clients_cancel_out():
    rounds = [
        (1 + 0.3 * np.random.default_rng(i).standard_normal((11, 40))).astype(np.float32) for i in range(200)
    ]

    def drift(liars_of):
        moved = [mean(np.concatenate([r[:8], liars_of(r[:8], r[8:])])) - mean(r[:8]) for r in rounds]
        return length(np.mean(moved, axis=0))

    assert drift(lambda honest, own: forged("alie", honest, own)) > 3 * drift(lambda honest, own: own)


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_it_gives_a_float32_row_for_each_liar_and_leaves_what_it_was_given(name, honest, own):
    before = honest.copy(), own.copy()
    rows = forged(name, honest, own)
    assert rows.shape == own.shape
    assert rows.dtype == np.float32
    assert not np.shares_memory(rows, own)
    np.testing.assert_array_equal(honest, before[0])
    np.testing.assert_array_equal(own, before[1])


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_it_repeats_for_the_same_seed(name, honest, own):
    first, second = forged(name, honest, own), forged(name, honest, own)
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("name", sorted(set(FORGERIES)))
@pytest.mark.parametrize("liars", [1, 2])
def test_it_works_for_one_honest_client_and_few_liars(name, liars, honest, own):
    assert np.isfinite(forged(name, honest[:1], own[:liars])).all()


@pytest.mark.parametrize(("name", "worst"), [("min_max", np.max), ("min_sum", np.sum)])
def test_min_max_and_min_sum_stay_as_near_as_the_honest_are_and_no_nearer(name, worst, honest, own):
    def far(row):
        return worst(((honest.astype(np.float64) - row) ** 2).sum(axis=1))

    limit = max(far(row) for row in honest.astype(np.float64))
    reached = far(forged(name, honest, own)[0].astype(np.float64))
    assert 0.9999 * limit < reached <= limit


def test_alie_stays_within_z_deviations_of_every_coordinate(honest, own):
    rows = forged("alie", honest, own, z=1.5)
    away = np.abs(rows - mean(honest)) / honest.std(axis=0)
    np.testing.assert_allclose(away, 1.5, rtol=1e-3)


def test_alie_z_is_the_papers_quantile():
    assert alie_z(50, 12) == pytest.approx(0.336, abs=1e-3)  # 14 supporters, Φ(z) = (38 - 14) / 38
    assert alie_z(50, 24) == pytest.approx(1.426, abs=1e-3)  # 2 supporters, Φ(z) = (26 - 2) / 26
    assert alie_z(50, 0) == 0.0
    assert alie_z(3, 2) == pytest.approx(3.0)


def test_ipm_turns_the_inner_product_negative(honest, own):
    assert (forged("ipm", honest, own) @ mean(honest) < 0).all()


def test_sign_flip_and_scaling_are_their_own_updates_reversed_and_longer(honest, own):
    np.testing.assert_array_equal(forged("sign_flip", honest, own), -own)
    np.testing.assert_allclose(forged("scaling", honest, own), 1000 * own, rtol=1e-6)


def test_mimic_is_the_honest_row_furthest_along_the_leading_direction(honest, own):
    honest[6] += np.linspace(-4, 4, 40, dtype=np.float32)
    np.testing.assert_array_equal(forged("mimic", honest, own), np.repeat(honest[[6]], 3, axis=0))


def test_model_replacement_lands_a_mean_on_the_liars_model(honest, own):
    quiet = np.zeros_like(honest)
    moved = mean(np.concatenate([quiet, forged("backdoor", quiet, own)]))
    np.testing.assert_allclose(moved, mean(own), rtol=1e-5)


def test_colluders_send_the_same_row_against_their_mean(honest, own):
    rows = forged("collude", honest, own)
    assert len(np.unique(rows, axis=0)) == 1
    np.testing.assert_allclose(rows[0], -mean(own), rtol=1e-6)


def test_non_finite_rows_are_not_finite_and_of_both_kinds(honest, own):
    rows = forged("non_finite", honest, own)
    assert not np.isfinite(rows).all(axis=1).any()
    assert np.isnan(rows).any()
    assert np.isinf(rows).any()


@pytest.mark.parametrize(("name", "usual"), [("optimal_ipm", "ipm"), ("optimal_alie", "alie")])
@pytest.mark.parametrize("rule_name", ["mean", "trimmed_mean", "multi_krum"])
def test_the_search_is_at_least_as_bad_as_the_fixed_size(name, usual, rule_name, honest, own):
    options = {} if rule_name == "mean" else {"f": 3}

    def aggregate(rows):
        return rule(rule_name)(rows, np.ones(len(rows)), **options)

    def damage(found):
        rows = forged(found, honest, own, aggregate)
        return length(aggregate(np.concatenate([honest, rows])) - mean(honest))

    assert damage(name) >= damage(usual) * (1 - 1e-6)


def test_a_row_too_long_for_float32_stays_finite(honest, own):
    assert np.isfinite(forged("scaling", honest, own, factor=1e60)).all()


def test_an_unknown_attack_lists_the_known_ones():
    with pytest.raises(UnknownName, match="did you mean 'sign_flip'.*min_max"):
        attack("signflip")
