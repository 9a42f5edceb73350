"""What cannot keep its promise is refused before anything runs, in a sentence."""

import pytest

from fedcore.config import load_config
from fedcore.data.schema import Schema
from fedcore.errors import BadConfig, BadInput, PlanRefused, TooFewClients, UnknownName
from fedcore.plan import build_plan
from fedcore.privacy.events import GaussianSum
from fedcore.privacy.statement import statement
from fedcore.rng import generator
from fedcore.selection import Turn

LOCAL = ("privacy.mode=local", "combine.weights=equal", "privacy.delta=1e-3")
ROWS = {f"c{i:03d}": 10 + i for i in range(40)}
SCHEMA = Schema("s", "classification", "y", ("0", "1"), shape=(2,))
PRIVATE = ("privacy.mode=central", "combine.weights=equal", "local.algorithm=sgd", "privacy.delta=1e-3")


def plan(*overrides: str, rows=ROWS):
    return build_plan(load_config(overrides=overrides), rows, SCHEMA, {}, "r")


@pytest.mark.parametrize(
    ("override", "why"),
    [
        ("combine.weights=samples", "one large client would move the sum"),
        ("local.algorithm=scaffold", "would reach other clients without noise"),
        ("local.algorithm=fednova", "scaled by its client's rows after the clip"),
        ("local.algorithm=feddyn", "what is paid for is their noisy sum alone; set local.algorithm: sgd"),
        ("privacy.delta=0.5", "δ must stay below 1/40"),
    ],
)
def test_a_privacy_claim_that_cannot_be_proved_is_refused(override, why):
    with pytest.raises(PlanRefused, match=why) as caught:
        plan(*PRIVATE, override)
    assert caught.value.exit_code == 3


def test_noise_knows_sensitivity_divisor_and_event():
    found = plan(*PRIVATE, "cohort.sampling=poisson", "cohort.rate=0.25", "privacy.clip=0.5")
    assert found.noise is not None
    assert found.charge is not None
    assert (found.noise.deviation, found.noise.expected_cohort) == (0.5, 10.0)
    assert found.charge.event(0) == GaussianSum(1.0, 0.25)
    everyone = plan(*PRIVATE)
    assert everyone.noise is not None
    assert everyone.charge is not None
    assert everyone.noise.expected_cohort == 40.0
    assert everyone.charge.event(3) == GaussianSum(1.0, None)


@pytest.mark.parametrize(
    "overrides",
    [
        (*PRIVATE, "local.algorithm=fedprox"),
        (*LOCAL, "local.algorithm=feddyn"),
        ("local.algorithm=feddyn", "combine.rule=median"),
        ("local.algorithm=fednova", "combine.rule=trimmed_mean", "combine.f=2", "server.optimizer=adam"),
    ],
)
def test_algorithms_go_with_what_they_do_not_break(overrides):
    assert plan(*overrides).clients == tuple(ROWS)


def test_weights_are_the_servers_own():
    assert plan().weights["c003"] == 13.0
    assert set(plan("combine.weights=equal").weights.values()) == {1.0}


def test_clients_that_take_turns_each_have_one_before_any_has_two():
    clients = tuple(ROWS)
    found = plan("cohort.sampling=turns", "cohort.min_clients=1")
    drawn = [found.draw(clients, generator(1, "unused"), Turn(i)) for i in range(80)]
    assert {len(cohort) for cohort in drawn} == {1}
    first, second = ([cohort[0] for cohort in drawn[at : at + 40]] for at in (0, 40))
    assert sorted(first) == sorted(second) == sorted(clients)
    assert first != second
    with pytest.raises(BadConfig, match=r"cohort.min_clients.*must be 1 where clients take turns"):
        plan("cohort.sampling=turns")
    with pytest.raises(PlanRefused, match="one client more would change whose turn each round is"):
        plan(*PRIVATE, "cohort.sampling=turns", "cohort.min_clients=1")
    with pytest.raises(TooFewClients):
        plan("cohort.sampling=turns", "cohort.min_clients=1", "combine.rule=median", "combine.f=1")


def test_cohorts_are_drawn_as_named():
    clients = tuple(ROWS)
    assert plan().draw(clients, generator(1, "a"), Turn(0)) == clients
    uniform = plan("cohort.sampling=uniform", "cohort.size=7")
    drawn = [uniform.draw(clients, generator(1, "cohort", i), Turn(i)) for i in range(50)]
    assert {len(set(cohort)) for cohort in drawn} == {7}
    assert set().union(*drawn) == set(clients)
    poisson = plan("cohort.sampling=poisson", "cohort.rate=0.25")
    sizes = [len(poisson.draw(clients, generator(1, "cohort", i), Turn(i))) for i in range(400)]
    assert min(sizes) < max(sizes)
    assert sum(sizes) / 400 == pytest.approx(10, abs=4 * (7.5 / 400) ** 0.5)


def test_cyclic_cohorts_ask_everyone_once_in_as_many_rounds_as_bands():
    clients, rng = tuple(ROWS), generator(1, "a")
    cyclic = plan("cohort.sampling=cyclic", "privacy.bands=5")
    asked = [cyclic.draw(clients, rng, Turn(number)) for number in range(15)]
    assert sorted(client for cohort in asked[:5] for client in cohort) == sorted(clients)
    assert asked[:5] == asked[5:10] == asked[10:]
    assert max(map(len, asked)) < len(clients) / 2
    assert cyclic.draw(clients[::2], rng, Turn(3)) == tuple(c for c in asked[3] if c in clients[::2])
    other = plan("cohort.sampling=cyclic", "privacy.bands=5", "seed=9")
    assert [other.draw(clients, rng, Turn(number)) for number in range(5)] != asked[:5]


def test_a_cyclic_cohort_claims_no_amplification():
    private = plan(*PRIVATE, "cohort.sampling=cyclic", "privacy.bands=5")
    assert private.charge is not None
    assert private.charge.event(0) == GaussianSum(1.0, None)


def test_a_private_cohort_cannot_be_computed_from_the_parameters():
    private = (*PRIVATE, "cohort.sampling=poisson", "cohort.rate=0.5")
    twice = [plan(*private).chance("r", 0).random(8).tolist() for _ in range(2)]
    assert twice[0] != twice[1]
    seeded = [plan(*private, "privacy.noise=seeded").chance("r", 0).random(8).tolist() for _ in range(2)]
    assert seeded[0] == seeded[1] == generator(1, "cohort", "r", 0).random(8).tolist()


def test_runs_and_rounds_of_one_seed_draw_cohorts_of_their_own():
    chance = plan().chance
    drawn = {chance(run, number).random() for run in ("a", "b") for number in range(3)}
    assert len(drawn) == 6


@pytest.mark.parametrize(
    ("overrides", "rows"),
    [
        ((), {"only": 5}),
        (("cohort.sampling=uniform", "cohort.size=41"), ROWS),
        (("cohort.min_clients=41",), ROWS),
    ],
)
def test_too_few_clients_are_named(overrides, rows):
    with pytest.raises(TooFewClients, match="needs at least"):
        plan(*overrides, rows=rows)


@pytest.mark.parametrize(
    ("override", "known"),
    [("combine.rule=maen", "known: .*mean"), ("server.optimizer=sdg", "known: .*sgd")],
)
def test_unknown_names_list_the_known_ones(override, known):
    with pytest.raises(UnknownName, match=known):
        plan(override)


def test_the_quorum_is_a_share_of_the_cohort_and_at_least_the_minimum():
    needed = plan("cohort.quorum=0.5", "cohort.min_clients=3").needed
    assert [needed(n) for n in (2, 7, 40)] == [3, 4, 20]
    assert plan(*PRIVATE).needed(40) == 0


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ((), "No differential privacy"),
        (PRIVATE, "every client in every round"),
        ((*PRIVATE, "cohort.sampling=poisson", "cohort.rate=0.1"), "Poisson sampling at rate 0.1"),
        ((*PRIVATE, "privacy.noise=seeded"), "not a private release"),
    ],
)
def test_the_guarantee_says_what_it_is(overrides, words):
    assert words in statement(load_config(overrides=overrides), 40, 1.5)


@pytest.mark.parametrize(
    ("overrides", "error", "words"),
    [
        (("combine.rule=krum",), PlanRefused, "krum needs to know how many liars.*set combine.f"),
        (("combine.mixers=[nnm]",), PlanRefused, "nnm needs to know how many liars"),
        (("combine.f=3",), PlanRefused, "nothing in it survives a single liar"),
        (("combine.rule=fltrust",), PlanRefused, "an update that the server trained itself"),
        (("combine.rule=krum", "combine.options={f: 1}"), PlanRefused, "write it as combine.f"),
        (("combine.rule=trimmed_mean", "combine.f=20"), TooFewClients, "needs at least 41 clients, got 40"),
        (("combine.rule=bulyan", "combine.f=10"), TooFewClients, "needs at least 43 clients, got 40"),
        (
            ("combine.rule=median", "combine.f=4", "cohort.sampling=uniform", "cohort.size=8"),
            TooFewClients,
            "needs at least 9 clients, got 8",
        ),
        (("combine.mixers=[nmn]",), UnknownName, "did you mean 'nnm'"),
        (("combine.mixer_options={arc: {}}",), UnknownName, "combine.mixer_options 'arc'"),
        (("combine.mixers=[bucketing]",), BadInput, "bucketing needs the option size"),
        (("combine.options={radius: 3}",), UnknownName, "option of rule mean 'radius'"),
        (("combine.rule=centered_clipping",), BadInput, "centered_clipping needs the option radius"),
        (
            ("combine.options={radius: -3}", "combine.rule=centered_clipping"),
            BadInput,
            "radius must be finite",
        ),
        (("local.mu=1",), PlanRefused, "local.mu 1 with local.algorithm scaffold: nothing would use it"),
        (("local.alpha=1", "local.algorithm=fednova"), PlanRefused, "set local.algorithm: feddyn"),
        (("local.schedule=cosine", "run.rounds=101"), PlanRefused, "set local.period: 101 or more"),
        (("local.algorithm=scafold",), UnknownName, "did you mean 'scaffold'"),
        (
            ("local.algorithm=scaffold", "combine.rule=median"),
            PlanRefused,
            "reaches all others past the rule, so one liar would steer them",
        ),
        (("local.algorithm=feddyn", "server.optimizer=adam"), PlanRefused, "set server.optimizer: sgd"),
        ((*LOCAL, "local.algorithm=scaffold"), PlanRefused, "how many rows a client has"),
        ((*LOCAL, "local.algorithm=fednova"), PlanRefused, "set local.algorithm: sgd, fedprox or feddyn"),
        ((*PRIVATE, "combine.rule=median"), PlanRefused, "accounted for a plain sum"),
        ((*PRIVATE, "combine.mixers=[nnm]", "combine.f=1"), PlanRefused, "accounted for a plain sum"),
    ],
)
def test_an_aggregation_that_cannot_hold_is_refused_before_anyone_is_asked(overrides, error, words):
    with pytest.raises(error, match=words):
        plan(*overrides)


def test_a_plan_holds_the_aggregation_that_was_asked_for():
    found = plan(
        "local.algorithm=sgd",
        "combine.rule=trimmed_mean",
        "combine.mixers=[bucketing, nnm]",
        "combine.f=3",
        "combine.mixer_options={bucketing: {size: 2}}",
    )
    assert found.aggregate.options == {"f": 3}
    assert found.aggregate.mixers == (("bucketing", {"size": 2}), ("nnm", {"f": 3}))
    assert found.needed(4) == found.aggregate.least == 13
