"""The audit catches each way in which a private pipeline is known to be wrong, and lets the right one pass.

Each test breaks one piece of the real plan and runs the real rounds; seeds make them repeat. The honest ε is 1.3.
"""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from fedcore.errors import AuditFailed, BadConfig
from fedcore.plan import build_plan
from fedcore.redteam.audit import conclude
from fedcore.redteam.canary import Canaries, CanaryFleet
from fedcore.redteam.course import Asked, Audited, train
from fedcore.redteam.trial import Memory, open_arena
from fedcore.rng import generator
from fedcore.state import Plan, State
from fedcore.transforms.chain import identity

CANARIES, EACH, ROUNDS, CLIP = 400, 80, 30, 0.5


@pytest.fixture(scope="module")
def private(settings, tmp_path_factory):
    """Four real clients of digits, a logistic model, a fifth of all clients a round."""
    config = settings(
        "data.partition.scheme=iid",
        "model.name=logistic",
        "model.hidden=[]",
        "combine.weights=equal",
        "cohort.sampling=poisson",
        "cohort.rate=0.2",
        "privacy.mode=central",
        "privacy.max_noise_ratio=1e6",
        "privacy.noise=seeded",
        "privacy.noise_multiplier=2.5",
        f"privacy.clip={CLIP}",
        "privacy.delta=0.001",
        f"run.rounds={ROUNDS}",
        f"evaluate.every={ROUNDS}",
    )
    return config, open_arena(config, tmp_path_factory.mktemp("arena"), 0)


@pytest.fixture
def audit(private):
    """Audits the plan after a change of it: the verdict at 95 %, or one at each of `confidences`."""
    base, arena = private

    def run(
        change: Callable[[Plan], Plan] = lambda plan: plan,
        seed: int = 1,
        sight: str = "rounds",
        confidences: tuple[float, ...] = (0.95,),
    ):
        canaries = Canaries(CANARIES, f"seed {seed}", sight)
        rows = {**arena.rows, **dict.fromkeys(canaries.names, 1)}
        plan = build_plan(replace(base, seed=seed), rows, arena.schema, arena.features, "audit")
        model = arena.model.init(generator(seed, "init"))
        audited = Audited(
            plan=plan,
            start=State("audit", 0, model, plan.optimizer.init(model)),
            fleet=CanaryFleet(arena.fleet, canaries, CLIP),
            canaries=canaries,
            scale=plan.noise.expected_cohort / CLIP,
            journal=lambda number: Memory(),
            committed_at=lambda number: 0.0,
            account=None,
        )
        *_, course = train(replace(audited, plan=change(plan)))
        verdicts = [conclude("audit", audited, course, EACH, each) for each in confidences]
        return verdicts[0] if len(verdicts) == 1 else verdicts

    return run


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_correct_pipeline_passes(audit, seed):
    verdict = audit(seed=seed)
    assert verdict.passed, verdict.lower
    assert verdict.upper == pytest.approx(1.30, abs=0.01)
    assert verdict.lower["gaussian"] > 0.25, "it does see the canaries"
    verdict.require()


def no_noise(plan):
    return replace(plan, noise=replace(plan.noise, normal=lambda round_number: np.zeros))


def a_tenth_of_the_noise(plan):
    return replace(plan, noise=replace(plan.noise, deviation=plan.noise.deviation / 10))


def noise_for_the_mean(plan):
    """The deviation that the mean would need, on the sum."""
    return replace(
        plan, noise=replace(plan.noise, deviation=plan.noise.deviation / plan.noise.expected_cohort)
    )


def client_chosen_weights(plan):
    """Noise as for equal weights, on a sum in which each update counts as its client says; ours say ten."""
    noise, claims = plan.noise, {c: 10.0 if c.startswith("canary") else 1.0 for c in plan.clients}

    def weighted(matrix, weights, state, rng):
        summed = weights @ matrix.astype(np.float64)
        noisy = summed + noise.deviation * rng.standard_normal(summed.size)
        vector = (noisy / noise.expected_cohort).astype(np.float32)
        return SimpleNamespace(vector=vector, kept=np.ones(len(matrix)), state={}, notes={})

    return replace(plan, noise=None, aggregate=weighted, weights=claims)


def no_clip(plan):
    return replace(plan, guard=identity)


def half_of_the_model_unclipped(plan):
    return _clips_all_but(plan, 325)


def the_last_tenth_unclipped(plan):
    return _clips_all_but(plan, 65)


def _clips_all_but(plan, last):
    def apply(update, state, rng):
        clipped, state = plan.guard.apply(update[:-last], state, rng)
        return np.concatenate([clipped, update[-last:]]), state

    return replace(plan, guard=plan.guard._replace(apply=apply))


def the_same_noise_every_round(plan):
    normal = plan.noise.normal
    return replace(plan, noise=replace(plan.noise, normal=lambda round_number: normal(0)))


def amplification_without_sampling(plan):
    """Everyone takes part in every round, and the account is told of a fifth."""
    return replace(plan, draw=lambda clients, rng, round_number: tuple(clients))


ALL = {"one_run", "f_dp", "gaussian"}


@pytest.mark.parametrize(
    ("change", "by"),
    [
        (no_noise, ALL),
        (a_tenth_of_the_noise, ALL),
        (noise_for_the_mean, ALL),
        (client_chosen_weights, ALL),
        (no_clip, ALL),
        (half_of_the_model_unclipped, ALL),
        (the_last_tenth_unclipped, {"gaussian"}),
        (the_same_noise_every_round, ALL),
        (amplification_without_sampling, ALL),
    ],
)
def test_a_broken_pipeline_is_caught(audit, change, by):
    verdict, gate = audit(change, confidences=(0.95, Asked().confidence))
    assert set(verdict.exceeding) == by, verdict.lower
    assert "gaussian" in gate.exceeding, gate.lower
    for failed in (verdict, gate):
        with pytest.raises(AuditFailed, match=r"leaks ε ≥ .* but its accountant says ε ≤ 1\.29"):
            failed.require()


def test_noise_of_deviation_zero_does_not_even_run(audit):
    with pytest.raises(BadConfig, match="must be finite and above zero"):
        audit(lambda plan: replace(plan, noise=replace(plan.noise, deviation=0.0)))


def test_the_last_model_alone_shows_a_missing_noise_and_not_the_same_noise_every_round(audit):
    assert audit(sight="final").passed
    assert set(audit(no_noise, sight="final").exceeding) == ALL
    assert audit(the_same_noise_every_round, sight="final").passed, "only who sees the rounds sees that"
