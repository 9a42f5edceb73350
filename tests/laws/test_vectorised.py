"""A cohort in one computation gives what its clients give one after another."""

import json
from pathlib import Path

import numpy as np
import pytest

from fedcore.adapters.model import build_model, model_spec
from fedcore.config import Config
from fedcore.data.described import described
from fedcore.data.features import Features
from fedcore.data.federated import SiteData
from fedcore.data.schema import Schema
from fedcore.errors import BadInput, PlanRefused, TooFewClients
from fedcore.plan import build_plan
from fedcore.rng import generator
from fedcore.round import run_round
from fedcore.simulation import Memory, SerialFleet, SoftmaxFleet
from fedcore.state import State
from fedcore.types import Task

LINEAR = ("model.name=logistic", "model.hidden=[]", "model.framework=numpy", "local.algorithm=sgd")
WHOLE = (
    *LINEAR,
    "local.batch_size=1000",
    "local.weight_decay=0.01",
    "local.momentum=0.9",
    "combine.weights=equal",
)
PRIVATE = ("privacy.mode=central", "privacy.clip=0.3", "privacy.delta=0.01", "privacy.noise=seeded")


def fleets(config: Config, workdir: Path) -> tuple[SerialFleet, SoftmaxFleet, Features, Schema]:
    sites = workdir / "data" / "sites"
    schema, names = Schema.load(sites), tuple(sorted(p.name for p in sites.iterdir() if p.is_dir()))
    serial = SerialFleet(sites, names, config)
    features = described(serial, "r", schema, config.data).features
    return serial, SoftmaxFleet.over(sites, names, config, features), features, schema


@pytest.mark.parametrize(
    "overrides",
    [
        ("local.epochs=1",),
        ("local.epochs=4",),
        ("local.steps=3",),
        ("local.epochs=2", "privacy.max_noise_ratio=1000", *PRIVATE),
    ],
)
def test_updates_are_those_of_one_client_after_another(overrides, settings, workdir):
    config = settings(*WHOLE, *overrides)
    serial, together, features, schema = fleets(config, workdir)
    model = build_model(model_spec(config.model, schema, features)).init(generator(1, "init"))
    task = Task("train", "r", 3, model, json.loads(features.to_json()))
    asked = list(serial.clients)[::-1][:3]
    expected, got = list(serial.ask(task, asked)), list(together.ask(task, asked))
    assert [reply.client for reply in got] == asked
    for one, other in zip(expected, got, strict=True):
        assert one.vector is not None
        assert np.linalg.norm(one.vector) > 0.01
        np.testing.assert_allclose(other.vector, one.vector, atol=2e-6)
        assert (other.round, other.model_sha256) == (one.round, one.model_sha256)


def test_judgement_is_the_same(settings, workdir):
    config = settings(*WHOLE)
    serial, together, features, schema = fleets(config, workdir)
    model = build_model(model_spec(config.model, schema, features)).init(generator(2, "init"))
    task = Task("evaluate", "r", 0, model, json.loads(features.to_json()))
    for one, other in zip(
        serial.ask(task, serial.clients), together.ask(task, together.clients), strict=True
    ):
        assert (other.client, other.facts["rows"], other.facts["correct"]) == (
            one.client,
            one.facts["rows"],
            one.facts["correct"],
        )
        assert other.facts["loss_sum"] == pytest.approx(one.facts["loss_sum"], rel=1e-5)


def test_whole_rounds_end_in_the_same_model(settings, workdir):
    config = settings(*WHOLE, *PRIVATE, "privacy.max_noise_ratio=1000")
    serial, together, features, schema = fleets(config, workdir)
    tree = json.loads(features.to_json())
    models = []
    for fleet in (serial, together):
        plan = build_plan(config, together.rows, schema, tree, "r")
        start = build_model(model_spec(config.model, schema, features)).init(generator(1, "init"))
        state = State("r", 0, start, plan.optimizer.init(start))
        for _ in range(3):
            _, state = run_round(state, plan, fleet, Memory())
        models.append(state.model)
    np.testing.assert_allclose(models[1], models[0], atol=1e-5)


def test_nobody_asked_gives_no_reply(settings, workdir):
    _, together, _, _ = fleets(settings(*WHOLE), workdir)
    assert list(together.ask(Task("train", "r", 0, np.zeros(650, np.float32)), [])) == []
    with pytest.raises(BadInput, match="answers train and evaluate, got describe"):
        together.ask(Task("describe", "r", 0), together.clients)
    together.close()


def test_a_client_that_diverges_sends_no_update(settings, workdir):
    _, together, _, _ = fleets(settings(*WHOLE), workdir)
    model = np.full(650, np.inf, np.float32)
    with np.errstate(invalid="ignore"):
        (reply,) = together.ask(Task("train", "r", 0, model), together.clients[:1])
    assert reply.vector is None
    assert "training diverged" in str(reply.error)


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (("model.name=mlp",), "softmax regression alone, got model mlp"),
        (("local.batch_size=16",), r"local.batch_size 16 for up to \d+ rows"),
        (("local.algorithm=scaffold",), "local.algorithm scaffold"),
        (("privacy.mode=local",), "privacy.mode local"),
        (("privacy.clipping=adaptive",), "privacy.clipping adaptive"),
        (("privacy.evaluation=noised",), "without being bounded"),
    ],
)
def test_what_differs_between_clients_is_refused(overrides, why, settings, workdir):
    with pytest.raises(PlanRefused, match=why):
        fleets(settings(*WHOLE, *overrides), workdir)


def test_a_client_with_a_smaller_batch_is_refused(settings, workdir):
    _, fleet, features, _ = fleets(settings(*WHOLE), workdir)
    task = Task("train", "r", 0, np.zeros(650, np.float32), features, batch_sizes={fleet.clients[0]: 8})
    with pytest.raises(PlanRefused, match="too little memory"):
        fleet.ask(task, fleet.clients)


def test_clients_without_rows_are_named(settings, workdir):
    config = settings(*WHOLE)
    _, _, features, schema = fleets(config, workdir)
    spec, none = model_spec(config.model, schema, features), np.zeros((0, 8, 8), np.float32)
    nobody = SiteData(none, none[:, 0, 0], none, none[:, 0, 0])
    with pytest.raises(BadInput, match="client lonely has no rows"):
        SoftmaxFleet({"lonely": nobody}, spec, config)
    with pytest.raises(TooFewClients, match="virtual clients"):
        SoftmaxFleet({}, spec, config)
