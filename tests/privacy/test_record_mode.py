"""Record mode through the public door: what a plan charges, what it refuses, what leaves a client, a whole run."""

import numpy as np
import pytest

from fedcore.config import load_config
from fedcore.coordinator import records, simulate
from fedcore.data.features import Features, SiteStatistics, merge
from fedcore.data.schema import Schema
from fedcore.errors import BudgetSpent, PlanRefused
from fedcore.local.client import Client
from fedcore.plan import build_plan
from fedcore.privacy.accountant import epsilon
from fedcore.privacy.events import RecordSgd
from fedcore.types import Task

ROWS = {"a": 20, "b": 100, "c": 640}
SCHEMA = Schema("s", "classification", "y", ("0", "1"), shape=(2,))
RECORD = ("privacy.mode=record", "privacy.unit=record", "privacy.delta=1e-3", "local.algorithm=sgd")


def plan(*overrides: str, rows=ROWS):
    return build_plan(load_config(overrides=(*RECORD, *overrides)), rows, SCHEMA, {}, "r")


def test_a_plan_charges_its_costliest_silo_and_lets_the_server_add_nothing():
    found = plan("local.batch_size=32", "privacy.noise_multiplier=2", "local.epochs=2")
    assert found.charge is not None
    assert found.charge.event(0) == found.charge.event(7) == RecordSgd(2.0, 1.0, 2)
    assert (found.noise, found.adaptive) == (None, None)
    assert found.weights == {"a": 20.0, "b": 100.0, "c": 640.0}


def test_robust_rules_and_sampled_cohorts_may_follow_dp_sgd():
    found = plan(
        "local.epochs=1",
        "combine.rule=trimmed_mean",
        "combine.f=1",
        "cohort.sampling=poisson",
        "cohort.rate=0.5",
    )
    assert found.charge is not None
    assert found.charge.event(0) == RecordSgd(1.0, 1.0, 1)


@pytest.mark.parametrize(
    ("override", "why"),
    [
        ("privacy.unit=client", r"set privacy.unit: record"),
        ("privacy.mechanism=laplace", r"set privacy.mechanism: gaussian"),
        ("privacy.clipping=adaptive", r"set privacy.clipping: flat"),
        ("local.algorithm=scaffold", r"no corrections of its gradients; set local.algorithm: sgd"),
        ("local.steps=5", r"leave local.steps out"),
        ("privacy.delta=0.0016", r"640 records at c: δ must stay below 1/640"),
    ],
)
def test_a_claim_about_records_that_cannot_be_proved_is_refused(override, why):
    with pytest.raises(PlanRefused, match=why) as caught:
        plan(override)
    assert caught.value.exit_code == 3


SILOS = (
    *RECORD,
    "data.partition.scheme=iid",
    "data.partition.clients=3",
    "local.batch_size=64",
    "local.momentum=0",
    "local.lr=0.5",
    "combine.weights=samples",
    "privacy.clip=1",
    "privacy.noise_multiplier=1.5",
    "privacy.epsilon=20",
)


@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_three_silos_of_digits_learn_under_record_privacy(settings, tmp_path, framework):
    model = (f"model.framework={framework}", "model.name=linear", "model.hidden=[]")
    config = settings(*SILOS, *model, "run.rounds=6", "privacy.noise=seeded")
    result = simulate(config, tmp_path, "r")
    assert result.metrics["accuracy"] > 0.7
    kept = records(tmp_path, "r")
    assert [record.unusual for record in kept] == [{}] * 6
    assert result.epsilon == kept[-1].epsilon == pytest.approx(_epsilon(tmp_path, 6), rel=1e-9)
    again = simulate(config, tmp_path / "again", "r")
    assert again.model_sha256 == result.model_sha256


def _epsilon(workdir, rounds: int) -> float:
    import json

    clients = json.loads((workdir / "runs/r/plan.json").read_text())["clients"]
    smallest = min(clients.values())
    event = RecordSgd(1.5, 64 / smallest, smallest // 64)
    return epsilon([event] * rounds, 1e-3)


def test_training_stops_at_the_budget(settings, tmp_path):
    config = settings(*SILOS, "privacy.epsilon=2", "run.rounds=30")
    result = simulate(config, tmp_path, "r")
    assert result.rounds < 30
    assert result.epsilon is not None
    assert result.epsilon <= 2
    assert "budget" in str(result.stopped)
    with pytest.raises(BudgetSpent):
        simulate(config, tmp_path, "another")


@pytest.fixture
def client(workdir, settings) -> tuple[Client, Features]:
    sites = workdir / "data" / "sites"
    name = sorted(folder.name for folder in sites.iterdir() if folder.is_dir())[0]
    member = Client(name, sites, settings(*SILOS))
    statistics = member.answer(Task("describe", "r", -1)).facts["statistics"]
    return member, merge([SiteStatistics.from_tree(statistics)], Schema.load(sites))


def _task(features: Features, number: int, size: int = 8 * 8 * 8 + 8 + 10 * 8 + 10) -> Task:
    import json

    return Task("train", "r", number, np.zeros(size, np.float32), json.loads(features.to_json()))


def test_nothing_but_the_noisy_update_leaves_a_client_and_only_once_a_round(client):
    member, features = client
    reply = member.answer(_task(features, 0))
    assert reply.error is None
    assert reply.facts == {}
    assert reply.vector is not None
    second = member.answer(_task(features, 0))
    assert second.vector is None
    assert "answered round 0 of run r before" in str(second.error)
    assert member.answer(_task(features, 1)).error is None
