"""LiRA tells a memorising model, and tells nothing where there is nothing to tell."""

import numpy as np
import pytest

from fedcore.redteam.lira import (
    ATTACKS,
    area,
    balanced_accuracy,
    logit_confidence,
    offline,
    online,
    power,
    roc,
    wilson,
)


def drawn(rng, models=24, records=2000, effect=0.0):
    """Confidences of records of unequal difficulty, and `effect` more of them where a record is a member."""
    member = rng.random((models, records)) < 0.5
    phi = 3 * rng.standard_normal(records) + rng.standard_normal((models, records)) + effect * member
    return phi, member


def split(scores, member):
    known = ~np.isnan(scores)
    return scores[known & member], scores[known & ~member]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("name", ATTACKS)
def test_pure_noise_is_told_no_better_than_by_chance(name, shared):
    """Alarm is false with probability below 1e-4: a band of four deviations, threefold for shared records."""
    phi, member = drawn(np.random.default_rng(11))
    inside, outside = split(ATTACKS[name](phi, member, shared), member)
    for rate in (0.01, 0.1):
        band = 4 * 3**0.5 * (rate * (1 - rate) * (1 / len(inside) + 1 / len(outside))) ** 0.5
        assert abs(power(inside, outside, rate).tpr - rate) < band
    assert abs(area(inside, outside) - 0.5) < 0.02
    assert balanced_accuracy(inside, outside) < 0.52


@pytest.mark.parametrize("shared", [True, False, None])
def test_a_model_that_memorises_is_found_and_each_record_has_its_own_measure(shared):
    phi, member = drawn(np.random.default_rng(12), effect=3.0)
    found = {
        name: power(*split(attack(phi, member, shared), member), 0.01) for name, attack in ATTACKS.items()
    }
    assert found["online"].tpr > 0.4
    assert found["offline"].tpr > 0.4
    assert found["threshold"].tpr < 0.1
    assert found["online"].low < found["online"].tpr < found["online"].high


def test_the_scaled_confidence_is_the_logit_and_keeps_what_rounds_to_one():
    logits = np.array([[30.0, 0.0, -2.0], [1.0, 2.0, 3.0]])
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y = np.array([0.0, 1.0], np.float32)
    others = [np.log(np.exp(0.0) + np.exp(-2.0)), np.log(np.exp(1.0) + np.exp(3.0))]
    expected = [30.0 - others[0], 2.0 - others[1]]
    np.testing.assert_allclose(logit_confidence(scores.astype(np.float32), y), expected, rtol=1e-5)


def test_the_scaled_confidence_of_two_classes_counts_the_label():
    found = logit_confidence(np.array([0.8, 0.8], np.float32), np.array([1.0, 0.0], np.float32))
    np.testing.assert_allclose(found, [np.log(4), -np.log(4)], rtol=1e-5)


def test_certainty_and_its_opposite_stay_finite():
    scores = np.array([[1.0, 0.0], [1.0, 0.0]], np.float32)
    assert np.isfinite(logit_confidence(scores, np.array([0.0, 1.0], np.float32))).all()


def test_the_ratio_is_that_of_two_gaussians():
    """By hand: three others, two in at 2 and 4, two out at 0 and 2; the model's own confidence is 3."""
    phi = np.array([[3.0], [2.0], [4.0], [0.0], [2.0]])
    member = np.array([[True], [True], [True], [False], [False]])
    assert online(phi, member, False)[0, 0] == pytest.approx((0.0) + 0.5 * (2.0 / np.sqrt(2)) ** 2)
    assert offline(phi, member, False)[0, 0] == pytest.approx(2.0 / np.sqrt(2))


def test_a_record_that_no_other_model_saw_is_left_out():
    phi, member = drawn(np.random.default_rng(14), models=8, records=20)
    member[:, 0] = np.arange(8) == 3
    scores = online(phi, member)
    assert np.isnan(scores[3, 0])
    assert not np.isnan(np.delete(scores[:, 0], 3)).any()


def test_own_membership_and_confidence_do_not_reach_its_own_fit():
    phi, member = drawn(np.random.default_rng(13), models=8, records=30, effect=1.0)
    before = online(phi, member)[0]
    flipped = member.copy()
    flipped[0] = ~flipped[0]
    np.testing.assert_array_equal(online(phi, flipped)[0], before)


def test_equal_scores_fall_together_and_a_perfect_attack_is_perfect():
    same = np.zeros(5)
    np.testing.assert_array_equal(np.stack(roc(same, same)), [[0, 1], [0, 1]])
    assert power(same, same, 0.01).caught == 0
    assert power(np.ones(4), np.zeros(4), 0.001).tpr == 1.0
    assert balanced_accuracy(np.ones(4), np.zeros(4)) == 1.0
    assert area(np.ones(4), np.zeros(4)) == 1.0


def test_the_interval_covers_the_share_as_often_as_it_says():
    """4,000 draws at 95 %: below 93 % or above 98 % by chance less than once in a million."""
    rng, share, trials = np.random.default_rng(5), 0.03, 400
    hits = rng.binomial(trials, share, 4000)
    inside = [low <= share <= high for low, high in (wilson(int(h), trials) for h in hits)]
    assert 0.93 < np.mean(inside) < 0.98
