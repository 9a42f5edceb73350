"""What is private about a plan, by mode and mechanism; and what nobody could prove, refused in a sentence."""

from dataclasses import replace

import numpy as np
import pytest

from fedcore.config import load_config
from fedcore.data.features import Features, Scale
from fedcore.data.schema import Schema
from fedcore.errors import BadConfig, BadInput, CorruptState, PlanRefused
from fedcore.plan import build_plan
from fedcore.privacy.events import (
    Covered,
    DiscreteGaussianSum,
    FixedSizeSum,
    GaussianSum,
    LaplaceSum,
    LocalRelease,
    MatrixSums,
    SkellamSum,
)
from fedcore.session import features_tree
from fedcore.transforms.grid import on_grid, whole_steps

ROWS = {f"c{i:03d}": 10 for i in range(40)}
SCHEMA = Schema("s", "classification", "y", ("0", "1"), shape=(2,))
FEATURES = features_tree(Features((Scale("x", (0.0, 0.0), (1.0, 1.0), (0.0, 0.0)),), (), shape=(2,)))
CENTRAL = (
    "privacy.mode=central",
    "combine.weights=equal",
    "local.algorithm=sgd",
    "privacy.delta=1e-3",
    "privacy.noise_multiplier=2",
    "privacy.clip=0.5",
    "model.framework=numpy",
    "model.name=logistic",
    "model.hidden=[]",
)
LOCAL = (*CENTRAL, "privacy.mode=local")
CYCLIC = ("cohort.sampling=cyclic", "privacy.bands=4")


def plan(*overrides: str, features=FEATURES):
    return build_plan(load_config(overrides=overrides), ROWS, SCHEMA, features, "r")


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        ((*CENTRAL, "privacy.unit=record"), "its noise hides one client.*set privacy.unit: client"),
        ((*CENTRAL, "privacy.mode=record"), "its noise hides one record.*set privacy.unit: record"),
        ((*LOCAL, "privacy.mechanism=tree"), "nothing here can prove that.*gaussian or laplace"),
        ((*LOCAL, "privacy.clipping=adaptive"), "beside central Gaussian noise alone"),
        ((*CENTRAL, "privacy.clipping=adaptive", "privacy.mechanism=laplace"), "set privacy.clipping: flat"),
        ((*CENTRAL, "privacy.clipping=adaptive", "privacy.count_noise=1"), "alone costs more"),
        ((*CENTRAL, "cohort.rate=0.1"), "nobody is drawn at that rate"),
        ((*LOCAL, "cohort.rate=0.1", "cohort.sampling=uniform"), "nobody is drawn at that rate"),
        ((*LOCAL, "combine.weights=samples"), "would shape the model without noise"),
        ((*LOCAL, "privacy.delta=0.1"), "δ must stay below 1/40"),
        ((*CENTRAL, "cohort.max_suspicion=0.5"), "who is asked would depend on what clients sent"),
        ((*CENTRAL, "cohort.sampling=uniform", "privacy.mechanism=skellam"), "another neighbouring relation"),
        ((*CENTRAL, "privacy.mechanism=tree", "privacy.bands=4"), "at most once in 4 rounds"),
        ((*CENTRAL, "privacy.mechanism=banded", "cohort.sampling=poisson"), "does not see to it"),
        ((*CENTRAL, "privacy.mechanism=skellam", "privacy.noise_multiplier=1e-12"), "too fine for an exact"),
    ],
)
def test_what_nobody_could_prove_is_refused(overrides, why):
    with pytest.raises(PlanRefused, match=why):
        plan(*overrides)


@pytest.mark.parametrize("mechanism", ["discrete_gaussian", "skellam"])
def test_a_mechanism_that_counts_coordinates_needs_to_know_the_model(mechanism):
    with pytest.raises(PlanRefused, match="by the number of the model's parameters"):
        plan(*CENTRAL, f"privacy.mechanism={mechanism}", features={})


@pytest.mark.parametrize("clip", ["0", "-1", "null", ".inf", ".nan"])
def test_noise_without_a_clip_is_no_setting(clip):
    with pytest.raises(BadConfig, match=r"privacy\.clip: must be"):
        plan(*CENTRAL, f"privacy.clip={clip}")


@pytest.mark.parametrize(
    ("overrides", "events", "deviation", "cohort"),
    [
        ((), [GaussianSum(2, None)] * 2, 1.0, 40),
        (("cohort.sampling=poisson", "cohort.rate=0.1"), [GaussianSum(2, 0.1)] * 2, 1.0, 4),
        (("cohort.sampling=uniform", "cohort.size=8"), [FixedSizeSum(2, 8, 40)] * 2, 1.0, 8),
        (CYCLIC, [GaussianSum(2, None)] * 2, 1.0, 10),
        (("privacy.mechanism=laplace",), [LaplaceSum(2, None)] * 2, 2**0.5, 40),
        (
            ("privacy.mechanism=discrete_gaussian",),
            [DiscreteGaussianSum(2, None, 2.0**21, 3)] * 2,
            1.0,
            40,
        ),
        (("privacy.mechanism=skellam",), [SkellamSum(2.0**26, 3**0.5 * 2**12, 2.0**12)] * 2, 1.0, 40),
        (
            ("privacy.mechanism=banded", "run.rounds=8", *CYCLIC),
            [MatrixSums(2, pytest.approx((2 * (1 + 1 / 4 + 9 / 64 + 25 / 256)) ** 0.5), 8), Covered(0)],
            1.0,
            10,
        ),
        (("privacy.mechanism=tree", "run.rounds=1"), [MatrixSums(2, 1.0, 1)], 1.0, 40),
    ],
)
def test_a_central_plan_charges_what_it_adds(overrides, events, deviation, cohort):
    found = plan(*CENTRAL, *overrides)
    assert found.noise is not None
    assert found.charge is not None
    assert [found.charge.event(number) for number in range(len(events))] == events
    assert found.noise.deviation == pytest.approx(deviation, rel=1e-12)
    assert found.noise.expected_cohort == cohort


def test_adaptive_clipping_pays_for_its_count_with_more_noise_on_the_sum():
    found = plan(*CENTRAL, "privacy.clipping=adaptive", "privacy.count_noise=1.25")
    assert found.adaptive is not None
    assert found.noise is not None
    assert found.charge is not None
    assert found.charge.event(0) == GaussianSum(2, None)
    assert found.noise.deviation == pytest.approx(0.5 / (1 / 4 - 1 / 6.25) ** 0.5)
    adaptive = plan(*CENTRAL, "privacy.clipping=adaptive", "privacy.noise_multiplier=1").adaptive
    assert adaptive is not None
    assert (adaptive.start, adaptive.deviation) == (0.5, 2.0)


@pytest.mark.parametrize("mechanism", ["gaussian", "laplace"])
def test_local_noise_leaves_the_server_free_to_do_anything(mechanism):
    robust = ("combine.rule=trimmed_mean", "combine.f=3", "cohort.max_suspicion=0.9")
    found = plan(*LOCAL, f"privacy.mechanism={mechanism}", *robust)
    assert found.noise is None
    assert found.charge is not None
    assert found.charge.event(5) == LocalRelease(2.0, mechanism)
    assert found.needed(40) == 20


def test_record_privacy_waits_for_its_mode():
    with pytest.raises(PlanRefused):
        plan(*CENTRAL, "privacy.mode=record", "privacy.unit=record", "privacy.mechanism=skellam")


def test_correlated_noise_ends_with_the_rounds_it_was_made_for_and_is_never_begun_anew():
    found = plan(*CENTRAL, "privacy.mechanism=tree", "run.rounds=3")
    assert found.charge is not None
    assert found.noise is not None
    assert found.noise.mechanism is not None
    with pytest.raises(PlanRefused, match="made and paid for 3 rounds"):
        found.charge.event(3)
    with pytest.raises(CorruptState, match="noise of the rounds before round 2 is lost"):
        found.noise.mechanism(np.zeros(3), 1.0, 2, {})


def test_a_grid_is_a_power_of_two_and_sums_stay_on_it():
    with pytest.raises(BadInput, match="power of two"):
        on_grid(0.3)
    assert whole_steps(np.array([0.5, -0.25]), 0.25).tolist() == [2, -1]
    for off in ([0.3], [np.nan], [2.0**60]):
        with pytest.raises(BadInput, match="not on the grid"):
            whole_steps(np.array(off), 0.25)


@pytest.mark.parametrize("mechanism", ["laplace", "discrete_gaussian", "skellam", "tree"])
def test_noise_from_the_system_is_never_the_same_twice(mechanism):
    found = plan(*CENTRAL, f"privacy.mechanism={mechanism}").noise
    assert found is not None
    assert found.mechanism is not None
    first, second = (found.mechanism(np.zeros(3), found.deviation, 0, {})[0] for _ in range(2))
    assert not np.intersect1d(first, second).size
    quiet = replace(found, deviation=found.deviation / 1e3)
    assert quiet.mechanism is not None
    assert np.abs(quiet.mechanism(np.zeros(3), quiet.deviation, 0, {})[0]).max() < 0.1


def test_evaluation_off_asks_nobody():
    assert plan("privacy.evaluation=off").evaluate_every == 0
    assert plan("privacy.evaluation=clear").evaluate_every == 1


def test_sixteen_silos_cannot_be_hidden_whole_and_are_told_the_way_out():
    silos = {f"c{i:02d}": 1000 for i in range(16)}
    config = load_config(overrides=(*CENTRAL, "privacy.noise_multiplier=100"))
    with pytest.raises(
        PlanRefused, match=r"over 16 clients: noise multiplier 100 .*have at least .*privacy.mode: record"
    ):
        build_plan(config, silos, SCHEMA, FEATURES, "r")
