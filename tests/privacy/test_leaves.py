"""Nothing about a single client travels beside its update under privacy, and the report says all that does."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fedcore.cli import main
from fedcore.coordinator import advance, open_run, simulate
from fedcore.local.client import Client
from fedcore.privacy.leaves import disclosed, leaves
from fedcore.session import seen
from fedcore.tracking.points import points
from fedcore.types import Task

PRIVATE = (
    "privacy.mode=central",
    "privacy.delta=0.01",
    "privacy.noise=seeded",
    "privacy.max_noise_ratio=1000",
    "privacy.epsilon=1000",
    "combine.weights=equal",
    "local.algorithm=sgd",
)


def replies(config, workdir, *kinds):
    """What one client answers to each kind of task."""
    sites = workdir / "data" / "sites"
    name = sorted(p.name for p in sites.iterdir() if p.is_dir())[0]
    open_run(config, workdir, "r", sites)
    with seen(workdir, "r") as opened:
        state, features = opened.state(0), opened.plan.features
    client = Client(name, sites, config)
    return [client.answer(Task(kind, "r", 0, state.model, features)) for kind in kinds]


def test_without_privacy_a_client_says_its_loss_and_how_long_it_took(settings, workdir):
    (trained,) = replies(settings(), workdir, "train")
    assert {"loss", "seconds"} <= set(trained.facts)


def test_under_privacy_no_fact_travels_beside_the_update(settings, workdir):
    trained, judged = replies(settings(*PRIVATE), workdir, "train", "evaluate")
    assert trained.vector is not None
    assert trained.facts == {}
    assert judged.facts["rows"] > 0
    assert "seconds" not in judged.facts


def test_with_evaluation_off_a_client_does_not_evaluate(settings, workdir):
    (judged,) = replies(settings(*PRIVATE, "privacy.evaluation=off"), workdir, "evaluate")
    assert judged.facts == {}
    assert "could not evaluate" in str(judged.error)


def test_an_error_tells_no_reason_under_privacy(settings, workdir):
    with np.errstate(all="ignore"):
        (clear,) = replies(settings("local.lr=1e30"), workdir, "train")
        with seen(workdir, "r") as opened:
            task = Task("train", "r", 0, opened.state(0).model, opened.plan.features)
        private = settings(*PRIVATE, "local.lr=1e30")
        silent = Client(clear.client, workdir / "data" / "sites", private).answer(task)
    assert "diverged" in str(clear.error)
    assert "under privacy the reason stays there" in str(silent.error)
    assert "diverged" not in str(silent.error)


def test_a_private_round_shows_nobody_who_took_part(settings, workdir):
    config = settings(*PRIVATE)
    open_run(config, workdir, "r", workdir / "data" / "sites")
    facts = advance(workdir, "r", 0, "admit")
    assert not {"cohort", "replied", "accepted", "refused", "bytes_up"} & set(facts)
    assert "cohort" not in advance(workdir, "r", 0, "select")
    result = simulate(config, workdir, "r", workdir / "data" / "sites")
    folder = workdir / "runs" / "r"
    assert not (folder / "report" / "cohort.png").exists()
    assert (folder / "report" / "privacy.png").exists()
    assert result.metrics["accuracy"] > 0
    with seen(workdir, "r") as opened:
        record = opened.records()[0]
    assert record.cohort
    told = disclosed(record)
    assert (told.cohort, told.replied, told.bytes_up, dict(told.refused)) == ((), (), 0, {})
    assert told.epsilon == record.epsilon
    assert not {"cohort", "replied", "dropped", "bytes_up"} & set(points(record))
    open_record = replace(record, delta=None, epsilon=None)
    assert disclosed(open_record) is open_record
    assert points(open_record)["replied"] == len(record.replied)


def named(config):
    return {leaving.what.split(":")[0]: leaving for leaving in leaves(config)}


def test_the_report_covers_what_privacy_covers(settings):
    central = named(settings(*PRIVATE))
    assert central["model update"].covered
    assert "gaussian noise of 1 × the clip 1 is added to the sum" in central["model update"].mechanism
    assert central["training loss"].goes is None
    assert central["evaluation of the model on the site's held-out rows"].covered is False
    noised = named(settings(*PRIVATE, "privacy.evaluation=noised"))
    assert noised["evaluation of the model on the site's held-out rows"].covered is True
    off = named(settings(*PRIVATE, "privacy.evaluation=off"))
    assert off["evaluation of the model on the site's held-out rows"].goes is None
    assert named(settings())["model update"].covered is False
    assert named(settings())["training loss"].goes == "the server, its journal"


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("privacy.mode=local",), "the server is not trusted"),
        (("privacy.mode=record", "privacy.unit=record"), "covers a record of the site"),
    ],
)
def test_the_report_says_who_is_trusted(overrides, says, settings):
    assert says in named(settings(*PRIVATE, *overrides))["model update"].mechanism


def test_the_report_names_the_vote_of_adaptive_clipping(settings):
    assert named(settings(*PRIVATE, "privacy.clipping=adaptive"))[
        "whether the update was shorter than the clip"
    ].covered


def test_everything_uncovered_says_how_to_close_it(settings):
    for overrides in ((), PRIVATE, (*PRIVATE, "privacy.evaluation=off")):
        assert all(leaving.close for leaving in leaves(settings(*overrides)) if leaving.covered is False)


def test_the_command_prints_a_table_and_json(root, monkeypatch, capsys):
    monkeypatch.chdir(root)
    with pytest.raises(SystemExit) as ended:
        main(["privacy", "report", "--preset", "digits-private"])
    assert ended.value.code == 0
    assert "model update" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["privacy", "report", "--preset", "digits-private", "--json", "--strict"])
    assert ended.value.code == 3
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert told["mode"] == "central"
    assert any(what.startswith("feature statistics") for what in told["uncovered"])
    assert "without a declared mechanism, first: feature statistics" in err
