"""Whether a run still gets better; runs that stop by themselves with their best model, and runs that diverge."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fedcore import round as rounds
from fedcore.adapters.trained import TrainedModel
from fedcore.cli import main
from fedcore.compare import compare
from fedcore.config import EvaluateConfig, load_config
from fedcore.convergence import Progress, course, followed, why_stop
from fedcore.coordinator import advance, open_run, records, simulate
from fedcore.data.schema import Schema
from fedcore.errors import Diverged, PlanRefused, UnknownName
from fedcore.plan import build_plan
from fedcore.report import publish
from fedcore.types import vector_sha256

WATCH = EvaluateConfig(patience=2, min_delta=0.1, metric="loss")
# A rate at which the digits' loss soon rises again, though never by as much as a rollback needs.
RESTLESS = ("run.rounds=30", "local.lr=2.0", "evaluate.rollback_factor=1e6", "evaluate.patience=2")


def losses(*values: float | None) -> dict[int, dict[str, float]]:
    return {number: {} if value is None else {"loss": value} for number, value in enumerate(values)}


def test_only_a_gain_beyond_the_least_that_counts_ends_the_waiting():
    assert course(losses(1.0, 0.95, 0.85), frozenset(), WATCH) == Progress(0.85, 2)
    assert course(losses(1.0, 0.95, 0.92), frozenset(), WATCH) == Progress(1.0, 0, waited=2)


def test_a_round_that_was_not_judged_is_no_evaluation_and_one_rolled_back_no_gain():
    assert course(losses(None, 1.0, None, None), frozenset(), WATCH) == Progress(1.0, 1)
    assert course(losses(1.0, 0.1, 0.95), frozenset({1}), WATCH) == Progress(1.0, 0, waited=2)
    assert course(losses(None, 0.5), frozenset({1}), WATCH) is None


def test_where_more_is_better_a_gain_is_upwards():
    rules = replace(WATCH, metric="accuracy", min_delta=0.0)
    progress = followed(Progress(0.5, 0), 1, {"accuracy": 0.6}, True, rules)
    assert progress == Progress(0.6, 1)
    assert followed(progress, 2, {"accuracy": 0.55}, True, rules) == Progress(0.6, 1, waited=1)
    personal = replace(rules, metric="personal_loss")
    assert followed(Progress(0.5, 0), 1, {"personal_loss": 0.4}, True, personal) == Progress(0.4, 1)


def test_without_patience_nothing_stops():
    assert why_stop(Progress(1.0, 0, waited=99), replace(WATCH, patience=0)) is None
    assert why_stop(Progress(1.0, 0, waited=1), WATCH) is None
    assert "no gain in loss in 2 evaluations" in str(why_stop(Progress(1.0, 0, waited=2), WATCH))


def plan(*overrides: str, classes=("0", "1"), task="classification"):
    schema = Schema("s", task, "y", classes, shape=(2,))
    rows = {f"c{i}": 50 for i in range(4)}
    return build_plan(load_config(overrides=("local.algorithm=sgd", *overrides)), rows, schema, {}, "r")


@pytest.mark.parametrize(
    ("overrides", "options", "error", "words"),
    [
        (("evaluate.metric=acuracy",), {}, UnknownName, "did you mean 'accuracy'"),
        (("evaluate.metric=auc",), {"classes": ("0", "1", "2")}, UnknownName, "known: accuracy, loss"),
        (("evaluate.metric=accuracy",), {"task": "regression", "classes": ()}, UnknownName, "r2"),
        (("evaluate.metric=personal_loss",), {}, UnknownName, "unknown metric"),
        (
            (
                "evaluate.patience=2",
                "privacy.mode=central",
                "combine.weights=equal",
                "privacy.delta=0.01",
                "privacy.evaluation=off",
            ),
            {},
            PlanRefused,
            "nobody can see that it stops improving",
        ),
    ],
)
def test_a_metric_that_nobody_will_see_is_refused(overrides, options, error, words):
    with pytest.raises(error, match=words):
        plan(*overrides, **options)


def test_a_metric_of_personal_models_may_be_watched():
    assert plan("evaluate.metric=personal_accuracy", "personal.algorithm=ditto").rounds


def test_a_run_stops_by_itself_with_the_model_of_its_best_round(workdir, settings):
    config = settings(*RESTLESS)
    result = simulate(config, workdir, "a")
    told = records(workdir, "a")
    best = min(told, key=lambda record: record.metrics["loss"])
    assert result.rounds == len(told) == best.round + 3 < 30
    assert result.stopped is not None
    assert result.stopped.startswith(
        "no gain in loss in 2 evaluations (evaluate.patience): the model is that of"
    )
    assert (result.best_round, result.improving) == (best.round + 1, False)
    assert result.metrics == best.metrics
    trained = TrainedModel.load(result.model_dir)
    assert vector_sha256(trained.vector) == result.model_sha256 == best.model_sha256 != told[-1].model_sha256
    row = compare(workdir, ["a"])[0]
    assert (row.best_round, row.improving) == (best.round + 1, False)
    assert row.metrics["loss"] == best.metrics["loss"]
    publish(result.model_dir, told, workdir / "models", workdir / "reports")
    assert json.loads((workdir / "reports/metrics.json").read_text())["loss"] == best.metrics["loss"]
    assert simulate(config, workdir, "a") == result


def test_step_by_step_it_stops_at_the_same_round(workdir, settings):
    config = settings(*RESTLESS)
    open_run(config, workdir, "a")
    number = 0
    while not (facts := advance(workdir, "a", number, "record"))["done"]:
        number += 1
    assert "evaluate.patience" in facts["stopped"]
    assert simulate(config, workdir, "a").rounds == number + 1


def test_a_finished_run_says_which_round_was_best_and_whether_it_still_improves(
    workdir, root, monkeypatch, capsys
):
    monkeypatch.chdir(root)
    short = ("run.rounds=3", "data.partition.clients=4", "tracking.enabled=false")
    chosen = [part for key in short for part in ("-S", key)]
    for command in (["simulate", "--preset", "digits", *chosen], ["compare"]):
        with pytest.raises(SystemExit):
            main([*command, "--workdir", str(workdir)])
    out = capsys.readouterr().out
    assert "best         round 3, still improving" in out
    assert "3 ↗" in out


def test_a_run_that_diverges_later_keeps_its_last_good_model_and_says_so(workdir, settings):
    """The second round starts from a model so large that the rows' scores overflow."""
    config = settings("run.rounds=5", "evaluate.rollback_factor=1e30", "server.lr=1e13", "server.warmup=1")
    with pytest.raises(Diverged, match=r"round \d.*; kept the model of round \d; lower local.lr") as caught:
        simulate(config, workdir, "a")
    assert caught.value.exit_code == 11
    told = records(workdir, "a")
    assert told
    kept = [record for record in told if record.verdict == "keep"]
    trained = TrainedModel.load(workdir / "runs/a/model")
    assert np.isfinite(trained.vector).all()
    assert vector_sha256(trained.vector) == kept[-1].model_sha256
    with pytest.raises(Diverged):
        simulate(config, workdir, "a")
    assert rounds.kept_model(0) == "the model of round 1"
