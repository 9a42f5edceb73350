"""New clients are kept out of training, and a few of their rows show what the model is worth to them."""

import json

import numpy as np
import pytest

from fedcore.adaptation import adapt
from fedcore.cli import main
from fedcore.coordinator import open_run, simulate
from fedcore.errors import BadInput, TooFewClients
from fedcore.local.heads import head_of
from fedcore.session import seen

KEPT_OUT = ("personal.new_clients=2", "personal.inner_lr=0.5", "run.rounds=2")


@pytest.fixture
def ran(workdir, settings):
    """A run of two clients that kept two out."""
    simulate(settings(*KEPT_OUT), workdir, "a")
    return workdir


def test_clients_kept_out_take_no_part_and_are_named(workdir, settings):
    result = simulate(settings(*KEPT_OUT), workdir, "a")
    assert sorted(set(result.left_out.values())) == ["a new client: not trained on, see 'fedcore adapt'"]
    with seen(workdir, "a") as opened:
        assert len(opened.plan.clients) == 2
        assert sorted(result.left_out) == opened.body["new_clients"]
        assert not {*result.left_out} & {*opened.plan.clients}


def test_a_few_rows_and_steps_help_a_new_client(ran):
    with seen(ran, "a") as opened:
        found = adapt(opened, samples=10, steps=5)
        still = adapt(opened, samples=10, steps=0)
        slow = adapt(opened, samples=10, steps=5, rate=0.0)
    assert found.rate == 0.5
    assert found.metrics["personal_accuracy"] > found.metrics["accuracy"]
    assert still.metrics["personal_accuracy"] == still.metrics["accuracy"] == found.metrics["accuracy"]
    assert slow.metrics["personal_loss"] == slow.metrics["loss"]
    assert len(found.clients) == 2
    assert not found.skipped
    rows = np.array([c["rows"] for c in found.clients.values()])
    right = np.array([c["personal_accuracy"] for c in found.clients.values()])
    assert found.metrics["personal_accuracy"] == pytest.approx((rows * right).sum() / rows.sum())


def test_where_heads_are_the_clients_own_only_the_head_adapts(workdir, settings, monkeypatch):
    simulate(settings(*KEPT_OUT, "personal.algorithm=fedper"), workdir, "a")
    with seen(workdir, "a") as opened:
        trained, seen_vectors = opened.trained(), []
        kind = type(trained.model)
        scores = kind.scores
        monkeypatch.setattr(kind, "scores", lambda self, v, x: seen_vectors.append(v) or scores(self, v, x))
        adapt(opened, samples=10, steps=3)
    head = head_of(trained.model.layout, 1)
    assert any((vector[head] != trained.vector[head]).any() for vector in seen_vectors)
    assert all(np.array_equal(vector[~head], trained.vector[~head]) for vector in seen_vectors)


def test_the_command_prints_a_table_or_json(ran, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["adapt", "--run", "a", "--workdir", str(ran), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert (told["run"], told["samples"], told["steps"], told["rate"]) == ("a", 10, 5, 0.5)
    with pytest.raises(SystemExit, match="0"):
        main(["adapt", "--run", "a", "--workdir", str(ran)])
    shown = capsys.readouterr().out
    assert f"{told['metrics']['personal_accuracy']:.4f}" in shown
    assert "2 new clients of run a: 5 steps at 0.5 on 10 rows each" in shown
    with pytest.raises(SystemExit, match="0"):
        main(["adapt", "--run", "a", "--samples", "100000", "--workdir", str(ran)])
    assert "fewer than 100000 training rows" in capsys.readouterr().out


def test_a_run_without_new_clients_or_with_silent_ones_is_refused_in_a_sentence(workdir, settings):
    open_run(settings(), workdir, "all")
    with seen(workdir, "all") as opened, pytest.raises(BadInput, match="kept no client out.*new_clients=10"):
        adapt(opened, 10, 5)
    silent = ("privacy.mode=local", "privacy.delta=0.01", "privacy.evaluation=off", "combine.weights=equal")
    open_run(settings(*KEPT_OUT, *silent), workdir, "silent")
    with seen(workdir, "silent") as opened, pytest.raises(BadInput, match="privacy.evaluation: off"):
        adapt(opened, 10, 5)
    with pytest.raises(TooFewClients, match=r"personal.new_clients 3 needs at least 5 clients, got 4"):
        open_run(settings("personal.new_clients=3"), workdir, "few")
