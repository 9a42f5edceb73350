"""The registry on a real database: gates before moves, every crash between moves mended by running again."""

import itertools

import numpy as np
import pytest

from fedcore import registry
from fedcore.adapters.trained import TrainedModel
from fedcore.config import Gate, PromotionConfig
from fedcore.errors import BadInput, GateRefused
from fedcore.tracking.mlflow import connect

MODEL = "flights-delay"
PLAIN = PromotionConfig(model=MODEL)
GATED = PromotionConfig(model=MODEL, gates=(Gate("auc", min=0.70), Gate("epsilon", max=8.0)))


@pytest.fixture
def train(opened, record, trained, uri):
    """Trains and registers a model with this AUC; gives its version."""
    numbers = itertools.count(1)

    def make(auc: float, epsilon: float | None = 2.0) -> registry.Version:
        run = opened(f"run-{next(numbers)}")
        delta = None if epsilon is None else 1e-5
        told = record(4, run="any", metrics={"auc": auc}, epsilon=epsilon, delta=delta)
        run(told)
        run.describe({}, "none", {"UA": {"passed": True}, "OO": {"passed": False}})
        run.log_model(trained(), told)
        run.finish()
        return registry.register(uri, PLAIN, run.run_id)

    return make


@pytest.fixture
def aliases(uri):
    """Which version number each alias names."""
    return lambda: {k: int(v) for k, v in connect(uri).get_registered_model(MODEL).aliases.items()}


def test_a_registered_version_carries_what_gates_and_people_need(train):
    version = train(0.75)
    assert version.aliases == ("candidate",)
    assert version.number == 1
    assert version.metrics["auc"] == 0.75
    assert version.metrics["epsilon"] == 2.0
    assert version.tags["fed.model_sha256"] == f"{4:064x}"
    assert version.tags["fed.round"] == "4"
    assert version.tags["fed.checks"] == "1 of 2 sites passed"
    assert version.tags["data.digests"] == '{"UA":"' + "a" * 36 + '"}'
    assert version.uri == "models:/flights-delay/1"


def test_how_long_a_round_took_is_no_property_of_the_version(train):
    assert not [tag for tag in train(0.75).tags if tag.startswith("seconds.")]


def test_the_privacy_spent_counts_rounds_after_the_model_too(opened, record, trained, uri):
    run = opened()
    kept, thrown_away = record(3, epsilon=2.0, delta=1e-5), record(4, epsilon=2.5, delta=1e-5)
    run(kept)
    run(thrown_away)
    run.log_model(trained(), kept)
    assert registry.register(uri, PLAIN, run.run_id).metrics["epsilon"] == 2.5


def test_the_same_model_of_the_same_run_is_registered_once(train, uri):
    first = train(0.75)
    again = registry.register(uri, PLAIN, first.run_id, {"note": "x"})
    assert again.number == first.number
    registry.promote(uri, PLAIN)
    assert registry.register(uri, PLAIN, first.run_id).aliases == ("champion",)


def test_facts_are_added_to_the_tags(train, uri, opened, record, trained):
    run = opened("with facts")
    run.log_model(trained(), record(1))
    assert registry.register(uri, PLAIN, run.run_id, {"approved_by": "me"}).tags["approved_by"] == "me"


def test_a_version_never_nominated_because_of_a_crash_becomes_candidate(train, uri):
    version = train(0.75)
    connect(uri).delete_registered_model_alias(MODEL, "candidate")
    assert registry.register(uri, PLAIN, version.run_id).aliases == ("candidate",)


def test_an_old_version_registered_again_does_not_push_out_a_newer_candidate(train, uri, aliases):
    old, _ = train(0.75), train(0.76)
    registry.register(uri, PLAIN, old.run_id)
    assert aliases() == {"candidate": 2}


def test_promotion_moves_champion_and_keeps_the_one_before(train, uri, aliases):
    train(0.75)
    first = registry.promote(uri, GATED)
    assert (first.champion.number, first.previous, first.moved) == (1, None, True)
    assert first.gates == {"auc": "0.75 (min 0.7)", "epsilon": "2 (max 8)"}
    train(0.76)
    second = registry.promote(uri, GATED)
    assert (second.champion.number, second.previous) == (2, 1)
    assert aliases() == {"champion": 2, "previous": 1}
    assert registry.champion(uri, MODEL).tags["gate.auc"] == "0.76 (min 0.7)"


def test_promoting_the_champion_again_changes_nothing(train, uri, aliases):
    train(0.75)
    train(0.76)
    registry.promote(uri, PLAIN, 1)
    registry.promote(uri, PLAIN, 2)
    before = aliases()
    again = registry.promote(uri, PromotionConfig(model=MODEL, gates=(Gate("auc", min=0.99),)), 2)
    assert not again.moved
    assert again.previous == 1
    assert aliases() == before


CUT_OFF = [
    {"champion": 1, "candidate": 2},
    {"champion": 1, "previous": 1, "candidate": 2},
    {"champion": 2, "previous": 1, "candidate": 2},
]


@pytest.mark.parametrize("version", [2, None])
def test_a_promotion_cut_off_anywhere_is_finished_by_the_same_command(train, uri, aliases, version):
    train(0.75)
    train(0.76)
    client = connect(uri)
    for after_crash in CUT_OFF:
        for alias in aliases():
            client.delete_registered_model_alias(MODEL, alias)
        for alias, number in after_crash.items():
            client.set_registered_model_alias(MODEL, alias, str(number))
        registry.promote(uri, PLAIN, version)
        assert aliases() == {"champion": 2, "previous": 1}, after_crash


def test_a_failed_gate_names_value_and_limit_and_moves_nothing(train, uri, aliases):
    train(0.75)
    registry.promote(uri, GATED)
    train(0.61)
    with pytest.raises(GateRefused, match=r"promotion refused by gate auc: value 0\.61, limit min 0\.7;"):
        registry.promote(uri, GATED)
    assert aliases() == {"champion": 1, "candidate": 2}
    assert not any(tag.startswith("gate.") for tag in connect(uri).get_model_version(MODEL, "2").tags)


def test_a_missing_metric_is_a_failure(train, uri):
    train(0.75, epsilon=None)
    with pytest.raises(GateRefused, match="gate epsilon: value missing, limit max 8"):
        registry.promote(uri, GATED)


def test_a_candidate_must_beat_the_champion_where_asked(train, uri):
    better = PromotionConfig(model=MODEL, better_than_champion="auc")
    train(0.75)
    assert registry.promote(uri, better).moved
    train(0.75)
    with pytest.raises(GateRefused, match=r"gate auc: value 0\.75, limit better than the champion's 0\.75"):
        registry.promote(uri, better)
    train(0.76)
    assert registry.promote(uri, better).champion.number == 3


def test_rollback_brings_the_champion_before_back_and_is_final(train, uri, aliases):
    first, second = train(0.75), train(0.76)
    registry.promote(uri, PLAIN, first.number)
    registry.promote(uri, PLAIN, second.number)
    assert registry.rollback(uri, MODEL).number == 1
    assert aliases() == {"champion": 1}
    assert registry.register(uri, PLAIN, second.run_id).aliases == ()
    with pytest.raises(BadInput, match="no previous version"):
        registry.rollback(uri, MODEL)


def test_a_rollback_cut_off_in_the_middle_is_finished_by_the_same_command(train, uri, aliases):
    train(0.75)
    train(0.76)
    registry.promote(uri, PLAIN, 1)
    registry.promote(uri, PLAIN, 2)
    connect(uri).set_registered_model_alias(MODEL, "champion", "1")
    assert registry.rollback(uri, MODEL).number == 1
    assert aliases() == {"champion": 1}


def test_what_is_not_there_is_said(train, uri, opened):
    assert registry.champion(uri, MODEL) is None
    with pytest.raises(BadInput, match="has logged no model"):
        registry.register(uri, PLAIN, opened().run_id)
    with pytest.raises(BadInput, match="has no candidate"):
        registry.promote(uri, PLAIN)
    train(0.75)
    with pytest.raises(BadInput, match="has no version 9"):
        registry.promote(uri, PLAIN, 9)
    with pytest.raises(BadInput, match="does not know it"):
        registry.register(uri, PLAIN, "f" * 32)


def test_the_trained_model_of_a_version_can_be_fetched(train, uri, trained, tmp_path):
    version = train(0.75)
    model = TrainedModel.load(registry.fetch(uri, version, tmp_path / "got"))
    np.testing.assert_array_equal(model.vector, trained().vector)


def test_a_run_is_found_by_name(train, uri):
    version = train(0.75)
    assert registry.find_run(uri, "fedcore", "run-1") == version.run_id
