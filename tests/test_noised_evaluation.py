"""Models judged under noise: who is asked, what leaves, what is charged, and what the metrics are worth."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from fedcore.coordinator import advance, open_run, records, simulate
from fedcore.errors import BadInput, CorruptState, PlanRefused, RunConflict
from fedcore.ledger import entries
from fedcore.local.client import Client
from fedcore.local.shares import NOISE, shares_of
from fedcore.privacy.accountant import Account
from fedcore.privacy.events import (
    Covered,
    GaussianSum,
    Judged,
    LocalRelease,
    MatrixSums,
    RecordSgd,
    event_from_json,
    event_tree,
)
from fedcore.privacy.leaves import SHARES
from fedcore.redteam.audit import run_audit
from fedcore.redteam.course import Asked
from fedcore.redteam.trial import open_arena
from fedcore.round import JUDGED
from fedcore.session import held, seen
from fedcore.store import Store
from fedcore.types import Task

MODEL = ("model.framework=numpy", "model.name=logistic", "model.hidden=[]")
NOISED = (
    "combine.weights=equal",
    "privacy.delta=0.01",
    "privacy.noise=seeded",
    "privacy.noise_multiplier=0.5",
    "privacy.epsilon=1e7",
    "privacy.max_noise_ratio=1e6",
    "privacy.evaluation=noised",
    "privacy.evaluation_noise=0.02",
    "run.rounds=3",
    *MODEL,
)
MODES = {
    "central": ("privacy.mode=central",),
    "local": ("privacy.mode=local",),
    "record": ("privacy.mode=record", "privacy.unit=record", "privacy.delta=0.001"),
}


def reserved(workdir):
    with Store.at(workdir) as store:
        return [
            event_from_json(entry["body"]["event"]) for entry in entries(store) if entry["kind"] == "reserve"
        ]


def accuracies(workdir, settings):
    """What the run's model is worth to each client, asked in the clear: hits and rows."""
    with seen(workdir, "a") as opened:
        task = Task("evaluate", "a", 2, opened.state(3).model, opened.plan.features)
        clients = [Client(name, workdir / "data/sites", settings(*MODEL)) for name in opened.plan.clients]
    facts = [client.answer(task).facts for client in clients]
    return [(told["correct"], told["rows"]) for told in facts]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_judged_under_noise_and_pays_for_it(mode, workdir, settings):
    config = settings(*NOISED, *MODES[mode])
    result = simulate(config, workdir, "a")
    events = reserved(workdir)
    assert len(events) == 3
    assert all(isinstance(event, Judged) for event in events)
    kinds = {
        "central": GaussianSum(0.02, None),
        "local": LocalRelease(0.02),
        "record": RecordSgd(0.02, 1.0, 1),
    }
    assert {event.evaluation for event in events} == {kinds[mode]}
    assert result.epsilon == pytest.approx(Account(Counter(events)).epsilon(config.privacy.delta))
    for record in records(workdir, "a"):
        assert record.client_metrics == {}
        assert set(record.metrics) == {"loss", "accuracy", NOISE}
        assert 0 < record.metrics[NOISE] < 0.05
    told, true = result.metrics["accuracy"], accuracies(workdir, settings)
    pooled = sum(hits for hits, _ in true) / sum(rows for _, rows in true)
    mean = np.mean([hits / rows for hits, rows in true])
    assert told == pytest.approx(pooled if mode == "record" else mean, abs=0.05)


def test_the_model_does_not_depend_on_how_it_is_judged(workdir, settings):
    config = settings(*NOISED, *MODES["central"])
    judged = simulate(config, workdir, "a")
    rest = ("privacy.evaluation=off", "privacy.population=other")
    with seen(workdir, "a") as opened:
        first = opened.records()[0].model_sha256
    simulate(settings(*NOISED, *MODES["central"], *rest), workdir / "off", "a", workdir / "data/sites")
    with seen(workdir / "off", "a") as opened:
        assert opened.records()[0].model_sha256 == first
    assert judged.metrics


def test_an_evaluation_is_charged_in_the_rounds_that_have_one_alone(workdir, settings):
    config = settings(*NOISED, *MODES["central"], "evaluate.every=2", "run.rounds=5")
    simulate(config, workdir, "a")
    assert [isinstance(event, Judged) for event in reserved(workdir)] == [False, True, False, True, True]
    assert [bool(record.metrics) for record in records(workdir, "a")] == [False, True, False, True, True]
    with pytest.raises(RunConflict, match="rounds was 5, now 6"):
        simulate(settings(*NOISED, *MODES["central"], "evaluate.every=2", "run.rounds=6"), workdir, "a")


def test_poisson_rounds_are_judged_by_a_draw_of_their_own(workdir, settings):
    sampled = ("cohort.sampling=poisson", "cohort.rate=0.5", "cohort.min_clients=1", "run.rounds=20")
    config = settings(*NOISED, *MODES["central"], *sampled)
    open_run(config, workdir, "a")
    with seen(workdir, "a") as opened:
        plan = opened.plan
        assert plan.judges is not None
        asked = [set(plan.judges("a", number)) for number in range(200)]
        trained = [set(plan.draw(plan.clients, plan.chance("a", n), None)) for n in range(200)]  # type: ignore[arg-type]
    # 4 clients, 200 rounds, a fair coin each: 4.4 standard errors is one false alarm in 10^5
    assert abs(sum(map(len, asked)) - 400) < 4.4 * np.sqrt(800 / 4)
    together = sum(len(one & other) for one, other in zip(asked, trained, strict=True))
    assert abs(together - 200) < 4.4 * np.sqrt(800 * 3 / 16)
    assert reserved(workdir) == []
    simulate(config, workdir, "a")
    assert {event.evaluation for event in reserved(workdir)} == {GaussianSum(0.02, 0.5)}


def test_a_killed_judgement_ends_in_the_same_bytes(workdir, settings, new_workdir):
    config = settings(*NOISED, *MODES["central"])
    whole = simulate(config, workdir, "a")
    other = new_workdir("other")
    open_run(config, other, "a")
    for number in range(3):
        for step in ("select", "release", "judge", "record"):
            advance(other, "a", number, step)
    again = simulate(config, other, "a")
    assert (again.model_sha256, again.metrics) == (whole.model_sha256, whole.metrics)


@pytest.mark.parametrize("mode", MODES)
def test_nothing_but_its_part_leaves_a_client(mode, workdir, settings):
    config = settings(*NOISED, *MODES[mode], "privacy.noise=system")
    open_run(config, workdir, "a")
    with seen(workdir, "a") as opened:
        shares = shares_of(config, opened.schema)
        task = Task("evaluate", "a", 1, opened.state(0).model, opened.plan.features)
    client = Client("client-001", workdir / "data/sites", config)
    first, second = client.answer(task), client.answer(task)
    assert set(first.facts) == {SHARES}
    assert len(first.facts[SHARES]) == shares.size == 3
    if mode == "central":  # the server adds the noise, and may ask again
        assert first.facts == second.facts
        assert shares.bounded(first) == pytest.approx(first.facts[SHARES])
    else:
        assert second.facts == {}
        assert "answered round 1 of run a before" in str(second.error)


@pytest.mark.parametrize("own", [("personal.algorithm=ditto",), ("personal.finetune_steps=3",)])
def test_a_model_made_without_noise_is_not_judged_as_if_one_record_moved_one_row(own, workdir, settings):
    with pytest.raises(PlanRefused, match="one record may change what it makes of all others"):
        open_run(settings(*NOISED, *MODES["record"], "local.algorithm=sgd", *own), workdir, "a")


def test_own_models_of_dp_sgd_are_judged(workdir, settings):
    own = ("personal.algorithm=mr_mtl", "local.algorithm=sgd", "run.rounds=1")
    result = simulate(settings(*NOISED, *MODES["record"], *own), workdir, "a")
    assert {"accuracy", "personal_accuracy"} <= set(result.metrics)


@pytest.mark.parametrize("mode", ["local", "record"])
def test_a_client_that_adds_the_noise_answers_where_an_evaluation_is_paid_alone(mode, workdir, settings):
    config = settings(*NOISED, *MODES[mode], "privacy.noise=system", "evaluate.every=2", "run.rounds=5")
    open_run(config, workdir, "a")
    with seen(workdir, "a") as opened:
        model, features = opened.state(0).model, opened.plan.features
    client = Client("client-001", workdir / "data/sites", config)
    answered = [
        SHARES in client.answer(Task("evaluate", "a", n, model, features)).facts for n in range(-1, 8)
    ]
    assert answered == [False, False, True, False, True, True, False, False, False]


@pytest.mark.parametrize("mode", ["local", "record"])
def test_answers_that_nobody_gives_twice_survive_a_kill(mode, workdir, settings):
    config = settings(*NOISED, *MODES[mode], "privacy.noise=system")
    open_run(config, workdir, "a")
    advance(workdir, "a", 0, "release")

    class Dying:
        def __init__(self, fleet):
            self.clients, self._fleet = fleet.clients, fleet

        def ask(self, task, clients):
            for number, client in enumerate(clients):
                if number == 2:
                    raise KeyboardInterrupt
                yield from self._fleet.ask(task, [client])

    with held(workdir, "a") as opened, pytest.raises(KeyboardInterrupt):
        replace(opened, fleet=Dying(opened.fleet)).advance(0, "judge")
    with held(workdir, "a") as opened:
        judged = opened.advance(0, "judge").facts("judge")["metrics"]
        journal = opened.store.journal("a", 0)
        parts = [journal.kept(JUDGED + client).facts["facts"][SHARES] for client in opened.plan.clients]
    total = np.sum(parts, axis=0)
    assert len(parts) == 4
    assert judged["loss"] == pytest.approx(4 * min(max(0.5 + total[1] / (2 * total[0]), 0), 1))


def test_a_gate_that_noise_leaves_without_a_metric_is_refused(workdir, settings):
    gates = ("promotion.gates=[{metric: auc, min: 0.9}]",)
    with pytest.raises(PlanRefused, match="promotion.gates asks for auc"):
        open_run(settings(*NOISED, *MODES["central"], *gates), workdir, "a")


def test_who_judges_beside_the_rounds_refuses_it(workdir, settings):
    with pytest.raises(PlanRefused, match="a trial under attack judges models beside its rounds"):
        open_arena(settings(*NOISED, *MODES["central"]), workdir, 1)


@pytest.mark.parametrize("bad", [{"training": 1, "evaluation": 2}, {"training": {}}, {}])
def test_a_judged_round_of_another_kind_is_never_skipped(bad):
    with pytest.raises(CorruptState):
        event_from_json({"kind": "judged", **bad})


def test_the_audit_is_of_what_training_released(workdir, settings):
    config = settings(
        *NOISED, *MODES["central"], "privacy.noise_multiplier=2", "privacy.evaluation_noise=0.3"
    )
    verdict = run_audit(config, workdir, Asked(canaries=10, guesses=2, seed=1))
    assert verdict.upper == pytest.approx(Account().plus(GaussianSum(2.0, None), 3).epsilon(0.01))


def verdicts(workdir, config, run):
    simulate(config, workdir, run)
    found = records(workdir, run)
    return {record.verdict for record in found}, [record.metrics["loss"] for record in found]


def test_noise_alone_rolls_nothing_back(workdir, settings):
    strict = (*NOISED, *MODES["central"], "evaluate.rollback_factor=1.0001", "run.rounds=12")
    still = settings(*strict, "privacy.evaluation_noise=0.4", "server.lr=1e-9")
    told, losses = verdicts(workdir, still, "still")
    assert max(losses) > 1.0001 * min(losses[:6])  # by noise: the model hardly moves
    assert told == {"keep"}
    worse = settings(*strict, "privacy.evaluation_noise=0.001", "server.lr=2")
    assert "rollback" in verdicts(workdir, worse, "worse")[0]


def test_where_nobody_answers_no_number_is_made_up(workdir, settings):
    sampled = ("cohort.sampling=poisson", "cohort.rate=0.01", "cohort.min_clients=1", "run.rounds=2")
    config = settings(*NOISED, *MODES["central"], *sampled, "privacy.evaluation_noise=1e-3")
    simulate(config, workdir, "a")
    with seen(workdir, "a") as opened:
        assert opened.plan.judges is not None
        asked = [len(opened.plan.judges("a", number)) for number in range(2)]
    assert asked == [0, 0]
    assert [record.metrics for record in records(workdir, "a")] == [{}, {}]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (("privacy.evaluation_noise=20",), "noise of 4.3 on each share"),
        (("privacy.mechanism=laplace",), "would weaken what that mechanism promises"),
        (("evaluate.patience=2", "evaluate.metric=auc"), "auc"),
        (("privacy.mode=none",), "no account would count its ε"),
    ],
)
def test_what_would_be_worth_nothing_is_refused(changes, why, workdir, settings):
    with pytest.raises((PlanRefused, BadInput), match=why):
        open_run(settings(*NOISED, *MODES["central"], *changes), workdir, "a")


def test_a_local_clients_noise_is_counted_for_all_of_them(workdir, settings):
    with pytest.raises(PlanRefused, match=r"noise of 0\.43 on each share"):
        open_run(settings(*NOISED, *MODES["local"], "privacy.evaluation_noise=1"), workdir, "a")


@pytest.mark.parametrize(
    "event",
    [
        Judged(GaussianSum(2.0, 0.1), GaussianSum(10.0, 0.1)),
        Judged(Covered(0), GaussianSum(3.0, None)),
        Judged(MatrixSums(1.0, 2.0, 5), GaussianSum(3.0, None)),
    ],
)
def test_a_judged_round_is_read_from_the_ledger_as_it_was_written(event):
    assert event_from_json(event_tree(event)) == event
    assert event.unit == "client"
    assert event.relation == event.training.relation


def test_a_judged_round_costs_what_its_two_releases_do():
    train, judge = GaussianSum(2.0, 0.1), GaussianSum(5.0, 0.1)
    both = Account().plus(Judged(train, judge), 30)
    assert both.spent(1e-5) == Account().plus(train, 30).plus(judge, 30).spent(1e-5)


def test_correlated_noise_is_paid_once_and_each_evaluation_beside_it(workdir, settings):
    config = settings(*NOISED, "privacy.mode=central", "privacy.mechanism=tree")
    result = simulate(config, workdir, "a")
    first, *others = reserved(workdir)
    assert isinstance(first.training, MatrixSums)
    assert {event.training for event in others} == {Covered(0)}
    judged = Account().plus(first.training).plus(GaussianSum(0.02, None), 3)
    assert result.epsilon == pytest.approx(judged.epsilon(0.01))
