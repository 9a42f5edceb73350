"""Trainings under attack run through the round itself, repeat, and end as rule and attack deserve."""

from dataclasses import replace

import numpy as np
import pytest

from fedcore.errors import BadInput, PlanRefused
from fedcore.redteam import ATTACKS
from fedcore.redteam.attacks import HONEST
from fedcore.redteam.trial import open_arena, run_trial
from fedcore.redteam.variants import noise, through, variant


def with_rule(config, rule, f=3, mixers=()):
    return replace(config, combine=replace(config.combine, rule=rule, f=f, mixers=mixers))


def test_without_liars_the_mean_is_what_the_round_gives_anyway(small, workdir, tmp_path):
    from fedcore.coordinator import simulate

    arena = open_arena(small, tmp_path, 0)
    trial = run_trial(arena, small, HONEST)
    result = simulate(small, tmp_path, "trial")
    assert trial.score == result.metrics["accuracy"]
    assert len(trial.scores) == 6
    assert trial.scores[0] < 0.3 < trial.score


def test_the_mean_falls_to_a_flipped_sign_and_a_robust_rule_stands(arena, small):
    honest = run_trial(arena, small, HONEST).score
    mean = run_trial(arena, small, ATTACKS["sign_flip"]).score
    robust = run_trial(arena, with_rule(small, "trimmed_mean", mixers=("nnm",)), ATTACKS["sign_flip"])
    assert mean < honest - 0.1
    assert robust.score > honest - 0.1
    assert robust.caught > 0.5
    assert robust.wronged < 0.2


def test_equal_settings_give_equal_bytes(arena, small):
    trials = [run_trial(arena, with_rule(small, "median"), ATTACKS["gaussian"]) for _ in range(2)]
    assert trials[0].model.tobytes() == trials[1].model.tobytes()
    assert trials[0].scores == trials[1].scores


def test_non_finite_updates_are_refused_at_admission_and_training_goes_on(arena, small):
    trial = run_trial(arena, with_rule(small, "trimmed_mean"), ATTACKS["non_finite"])
    assert trial.caught == 1.0
    assert trial.stopped is None
    assert np.isfinite(trial.model).all()
    assert trial.score > 0.6


@pytest.mark.parametrize("rule", ["mean", "multi_krum"])
def test_a_round_that_cannot_end_ends_the_trial_in_a_sentence(rule, arena, small):
    chosen = replace(small, cohort=replace(small.cohort, min_clients=9))
    config = with_rule(chosen, rule, None if rule == "mean" else 3)
    trial = run_trial(arena, config, ATTACKS["non_finite"])
    assert trial.stopped is not None
    assert "needs at least 9 clients, got 7" in trial.stopped
    assert len(trial.scores) == 6
    assert len(set(trial.scores)) == 1


def test_rounds_to_a_score_counts_from_one_and_says_never(arena, small):
    trial = run_trial(arena, small, HONEST)
    assert trial.rounds_to(trial.scores[1]) == 1
    assert trial.rounds_to(2.0) is None


@pytest.mark.parametrize("liars", [-1, 5, 11])
def test_half_liars_are_refused(liars, small, tmp_path):
    with pytest.raises(BadInput, match="no rule survives half of them"):
        open_arena(small, tmp_path, liars)


@pytest.mark.parametrize("name", ["top_k", "dp"])
@pytest.mark.parametrize("rule", ["mean", "trimmed_mean"])
def test_a_variant_changes_the_model_and_still_learns(name, rule, arena, small):
    config = with_rule(small, rule, None if rule == "mean" else 3)
    plain = run_trial(arena, config, HONEST)
    server = variant(name).server(config)
    changed = run_trial(arena, server, HONEST, through(name, server, 10))
    assert (changed.model != plain.model).any()
    assert changed.score > 0.5


def test_dp_is_central_for_the_mean_and_the_plan_would_refuse_it_for_others(arena, small):
    assert variant("dp").server(small).privacy.mode == "central"
    assert variant("dp").server(with_rule(small, "median")).privacy.mode == "none"
    claimed = replace(variant("dp").server(small), combine=with_rule(small, "median").combine)
    with pytest.raises(PlanRefused):
        run_trial(arena, claimed, HONEST)


def test_the_noise_of_clients_adds_up_to_that_of_the_sum():
    update, rng = np.zeros(20_000, np.float32), np.random.default_rng(2)
    rows = [noise(0.5 / np.sqrt(16)).apply(update, (), rng)[0] for _ in range(16)]
    assert np.sum(rows, axis=0).std() == pytest.approx(0.5, rel=0.03)
