"""The audit of other noise than fresh noise on the sum: each mode passes as it is, and is caught where a piece is broken."""

from dataclasses import replace

import numpy as np
import pytest

from fedcore.plan import build_plan
from fedcore.redteam.audit import conclude
from fedcore.redteam.canary import Canaries
from fedcore.redteam.course import Audited, matched, train
from fedcore.redteam.enrol import CORRELATED, correlated_noise, with_canaries
from fedcore.redteam.trial import Memory, open_arena
from fedcore.redteam.verdict import as_page, took_part
from fedcore.rng import generator
from fedcore.state import State
from fedcore.transforms.clip import clip
from fedcore.transforms.matrix import correlated

CANARIES, EACH, ROUNDS, CLIP = 400, 80, 20, 0.5
CENTRAL = ("privacy.mode=central",)
MODES = {
    "tree": (*CENTRAL, "privacy.mechanism=tree", "privacy.noise_multiplier=12", "privacy.bands=5"),
    "banded": (*CENTRAL, "privacy.mechanism=banded", "privacy.noise_multiplier=6", "privacy.bands=5"),
    "adaptive": (
        *CENTRAL,
        "privacy.clipping=adaptive",
        "privacy.noise_multiplier=12",
        "privacy.count_noise=20",
    ),
    "local": ("privacy.mode=local", "privacy.noise_multiplier=24"),
}


@pytest.fixture(scope="module")
def opened(settings, tmp_path_factory):
    """Four real clients of digits and a logistic model, under the noise of a mode."""
    found = {}

    def of(mode):
        if mode not in found:
            sampling = "cyclic" if "bands" in " ".join(MODES[mode]) else "all"
            config = settings(
                "data.partition.scheme=iid",
                "model.name=logistic",
                "model.hidden=[]",
                "combine.weights=equal",
                f"cohort.sampling={sampling}",
                "privacy.noise=seeded",
                f"privacy.clip={CLIP}",
                "privacy.delta=0.001",
                f"run.rounds={ROUNDS}",
                f"evaluate.every={ROUNDS}",
                *MODES[mode],
            )
            found[mode] = config, open_arena(config, tmp_path_factory.mktemp("arena"), 0)
        return found[mode]

    return of


@pytest.fixture
def audit(opened):
    """Audits a mode after a change of its plan, or of what its clients run."""

    def run(mode, change=lambda plan: plan, clients=lambda config: config, seed=1, sight="rounds"):
        base, arena = opened(mode)
        config = replace(base, seed=seed)
        steady = config.privacy.mechanism in CORRELATED or config.privacy.mode == "local"
        canaries = Canaries(CANARIES, f"seed {seed}", sight, steady)
        rows = {**arena.rows, **dict.fromkeys(canaries.names, 1)}
        plan = build_plan(config, rows, arena.schema, arena.features, "audit")
        model = arena.model.init(generator(seed, "init"))
        local = config.privacy.mode == "local"
        audited = Audited(
            plan=change(plan),
            start=State("audit", 0, model, plan.optimizer.init(model)),
            fleet=with_canaries(clients(config), arena.fleet, canaries),
            canaries=canaries,
            scale=(plan.noise.expected_cohort if plan.noise else 1.0) / CLIP,
            journal=lambda number: Memory(),
            committed_at=lambda number: 0.0,
            account=None,
            correlated=correlated_noise(config, sight),
            own_noise=CLIP if local and sight == "rounds" else None,
        )
        *_, course = train(audited)
        return conclude("audit", audited, course, EACH, 0.95)

    return run


def a_tenth(plan):
    return replace(plan, noise=replace(plan.noise, deviation=plan.noise.deviation / 10))


def a_clip_ten_times_too_wide(plan):
    return replace(plan, adaptive=replace(plan.adaptive, guard=lambda at: clip(10 * at)))


def too_quiet(config):
    return replace(
        config, privacy=replace(config.privacy, noise_multiplier=config.privacy.noise_multiplier / 10)
    )


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_as_it_is_passes_and_its_canaries_are_seen(audit, mode):
    verdict = audit(mode)
    assert verdict.passed, verdict.lower
    assert took_part(verdict) in as_page(verdict)
    assert verdict.lower["gaussian"] > 0.3 * verdict.upper, "it does see the canaries"
    assert (took_part(verdict).endswith("the opposite")) == (mode == "local")


@pytest.mark.parametrize(
    ("mode", "change"),
    [
        ("tree", a_tenth),
        ("banded", a_tenth),
        ("adaptive", a_tenth),
        ("adaptive", a_clip_ten_times_too_wide),
    ],
)
def test_a_broken_server_is_caught(audit, mode, change):
    verdict = audit(mode, change)
    assert set(verdict.exceeding) == {"one_run", "f_dp", "gaussian"}, verdict.lower


def test_clients_that_add_a_tenth_of_their_noise_are_caught(audit):
    verdict = audit("local", clients=too_quiet)
    assert set(verdict.exceeding) == {"one_run", "f_dp", "gaussian"}, verdict.lower


@pytest.mark.parametrize("mechanism", CORRELATED)
def test_a_score_counts_a_clip_for_each_round_and_its_noise_is_that_of_one_release(rng, mechanism):
    noise, canaries = correlated(mechanism, 16, 2), 3000
    asked = np.zeros((16, canaries))
    asked[::2] = 1
    clean = matched(noise, asked, asked)
    assert np.allclose(clean, 8)
    correlate = np.array([np.pad(noise.row(t), (0, 15 - t)) for t in range(16)])
    noised = matched(noise, asked + correlate @ rng.standard_normal((16, canaries)), asked)
    strength = np.linalg.norm(np.linalg.solve(correlate, asked[:, 0]))
    assert strength <= noise.sensitivity(8) * (1 + 1e-9)
    assert noised.std() == pytest.approx(
        8 / strength, rel=0.06
    )  # a false alarm in 30,000: 4 deviations of the estimate
