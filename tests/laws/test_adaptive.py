"""Adaptive clipping finds the asked quantile from either side, in private rounds, and pays for its count."""

from math import exp, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcore.config import PrivacyConfig
from fedcore.errors import PlanRefused
from fedcore.round import next_state
from fedcore.transforms import adaptive
from fedcore.transforms.client import client_chain
from fedcore.transforms.clip import norm
from fedcore.types import Reply, Task

CLIENTS = 100
LENGTHS = np.exp(np.linspace(-1, 1, CLIENTS))  # norms of the clients' updates
ADAPTIVE = ("privacy.clipping=adaptive", "privacy.count_noise=5", "run.rounds=200")
PRIVACY = PrivacyConfig(mode="central")


def trained(task: Task, client: str) -> Reply:
    """What an honest client sends: it clips to the norm of the task and says whether that changed anything."""
    update = np.zeros(4, np.float32)
    update[int(client[1:]) % 4] = LENGTHS[int(client[1:])]
    chain = client_chain(PRIVACY, task.clip)
    clipped, _ = chain.apply(update, chain.init(), np.random.default_rng(0))
    return Reply(client, {"unclipped": norm(update) <= task.clip}, clipped)


def follow(start: float, quantile: float, plan_of, play, rounds: int = 70) -> float:
    """The share of clients that the norm leaves unclipped, after the last rounds of a run from `start`."""
    plan = plan_of(*ADAPTIVE, f"privacy.clip={start}", f"privacy.quantile={quantile}", clients=CLIENTS)
    state, limits = None, []
    for _ in range(rounds):
        known = play(plan, trained, state)
        state = next_state(known)
        limits.append(state.clip)
    return float(np.mean(np.exp(np.mean(np.log(limits[-10:]))) >= LENGTHS))


@pytest.mark.parametrize("quantile", [0.25, 0.5, 0.8])
@pytest.mark.parametrize("start", [0.01, 100.0], ids=["100 times too small", "100 times too large"])
def test_the_norm_finds_the_quantile(start, quantile, private_plan, private_round):
    """The count's noise is 0.05 of the cohort: the mean of ten rounds is within 0.1, false alarms under 1 in 10^6."""
    rounds = 30 + int(5 * np.log(100) / min(quantile, 1 - quantile))
    assert follow(start, quantile, private_plan, private_round, rounds) == pytest.approx(quantile, abs=0.1)


@pytest.mark.parametrize("start", [0.5, 2.0])
def test_the_law_sees_a_flipped_sign(start, private_plan, private_round, monkeypatch):
    """Counting clipped clients with this rule, as one peer does, drives the norm away on both sides."""
    right = adaptive.following
    monkeypatch.setattr(
        "fedcore.private.following", lambda at, share, q, rate: right(at, 1 - share, 1 - q, rate)
    )
    assert follow(start, 0.5, private_plan, private_round) in (0.0, 1.0)


@given(st.floats(0.1, 50), st.floats(1.01, 100))
def test_sum_and_count_together_cost_what_one_release_of_the_joint_multiplier_does(joint, wider):
    count_noise = wider * joint / 2
    alone = adaptive.sum_multiplier(joint, count_noise)
    assert alone > joint
    assert 1 / sqrt(alone**-2 + (0.5 / count_noise) ** 2) == pytest.approx(joint)


def test_a_count_that_costs_more_than_the_round_is_refused():
    with pytest.raises(PlanRefused, match="alone costs more than privacy.noise_multiplier 2 allows.*above 1"):
        adaptive.sum_multiplier(2.0, 1.0)


def test_a_claim_that_the_arriving_norm_belies_counts_as_clipped():
    assert adaptive.vote(1.0, 1.0, True) == 0.5
    assert adaptive.vote(1.1, 1.0, True) == adaptive.vote(0.5, 1.0, False) == -0.5
    assert adaptive.following(1.0, 1.0, 0.5, 0.2) == exp(-0.1)
    assert 0 < adaptive.following(1e-30, 1e9, 0.5, 0.2) < adaptive.following(1e30, -1e9, 0.5, 0.2) < np.inf
