"""One seam, the same bytes: whatever engine answers, however many processes, and whatever dies meanwhile."""

import os
import signal
from contextlib import closing
from multiprocessing import active_children

import numpy as np
import pytest
import torch

from fedcore.config import Config
from fedcore.data.schema import Schema
from fedcore.errors import BadConfig, ServiceError
from fedcore.local.client import Client
from fedcore.local.place import Place
from fedcore.rng import generator
from fedcore.simulation import open_fleet
from fedcore.types import Reply, Task, canonical_json
from tests.laws.fleets import described, model_of

PRIVATE = ("privacy.mode=local", "privacy.noise=seeded", "privacy.delta=0.01", "combine.weights=equal")


def same(reply: Reply) -> tuple[object, ...]:
    """A reply without the time it took."""
    facts = {name: value for name, value in reply.facts.items() if name != "seconds"}
    vector = None if reply.vector is None else reply.vector.tobytes()
    return reply.client, canonical_json(facts), vector, reply.error, reply.round, reply.model_sha256


def played(config: Config, sites, names: tuple[str, ...]) -> list[tuple[object, ...]]:
    """What a fleet answers to all kinds of task, sorted by client."""
    with closing(open_fleet(config, sites, names)) as fleet:
        features = described(fleet, Schema.load(sites))
        size = Place(sites, config).model(features).layout.size
        model, answers = model_of(features, size), []
        drawn = generator(2, "corrections").normal(0, 0.01, (len(names), model.size)).astype(np.float32)
        tasks = [
            Task("train", "r", 0, model, features),
            Task("train", "r", 1, model, features, dict(zip(names, drawn, strict=True))),
        ]
        if config.privacy.mode == "none":
            tasks.append(Task("evaluate", "r", 1, model, features))
        for task in tasks:
            replies = sorted(fleet.ask(task, names), key=lambda reply: reply.client)
            assert [reply.client for reply in replies] == list(names)
            answers += [same(reply) for reply in replies]
        assert list(fleet.ask(tasks[0], [])) == []
        return answers


@pytest.mark.parametrize(
    ("engine", "workers"),
    [
        ("threads", 2),
        ("threads", 5),
        ("workers", 2),
        pytest.param("workers", 1, marks=pytest.mark.slow),
        pytest.param("workers", 3, marks=pytest.mark.slow),
        pytest.param("ray", 2, marks=[pytest.mark.slow, pytest.mark.filterwarnings("ignore")]),
    ],
)
@pytest.mark.parametrize("mode", [(), pytest.param(PRIVATE, marks=pytest.mark.slow)])
def test_engines_answer_in_the_bytes_of_one_process(settings, sites, names, engine, workers, mode):
    serial = played(settings(*mode), sites, names)
    assert played(settings(*mode, f"run.engine={engine}", f"run.workers={workers}"), sites, names) == serial


@pytest.mark.parametrize("engine", ["threads", pytest.param("workers", marks=pytest.mark.slow)])
@pytest.mark.parametrize("model", ["mlp", "dwcnn"])
def test_torch_trains_anywhere_to_the_bytes_of_one_process(settings, sites, names, engine, model):
    asked = ("model.framework=torch", f"model.name={model}")
    beside = played(settings(*asked, f"run.engine={engine}", "run.workers=2"), sites, names)
    assert beside == played(settings(*asked), sites, names)


def test_scikit_learns_estimators_are_not_in_two_threads_hands(settings, sites, names):
    one = settings("model.framework=sklearn")
    many = settings("model.framework=sklearn", "run.engine=threads", "run.workers=4")
    assert played(many, sites, names) == played(one, sites, names)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (
            ("model.framework=torch", "privacy.mode=record", "privacy.delta=0.01", "combine.weights=equal"),
            "opacus",
        ),
        (("model.framework=mlx",), "model.framework mlx takes"),
        (("model.framework=torch", "model.factory=tests.laws.test_engines:dropping"), "a module that draws"),
    ],
)
def test_threads_refuse_what_draws_from_a_generator_they_share(settings, sites, names, asked, why):
    with pytest.raises(BadConfig, match=f"run.engine: cannot be used: {why}.*use workers"):
        played(settings(*asked, "run.engine=threads"), sites, names)


def test_a_module_of_ones_own_that_draws_nothing_trains_on_threads(settings, sites, names):
    own = ("model.framework=torch", "model.factory=tests.laws.test_engines:plain")
    assert played(settings(*own, "run.engine=threads"), sites, names) == played(settings(*own), sites, names)


def plain(input_shape: tuple[int, ...], outputs: int) -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 5), torch.nn.Tanh(), torch.nn.Linear(5, outputs)
    )


def dropping(input_shape: tuple[int, ...], outputs: int) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.5), torch.nn.Linear(64, outputs))


def test_an_error_on_a_thread_reaches_the_one_who_asked(settings, sites, names, monkeypatch):
    def broken(*_: object) -> None:
        raise ServiceError("no more memory; use less")

    monkeypatch.setattr(Client, "answer", broken)
    with (
        closing(open_fleet(settings("run.engine=threads"), sites, names)) as fleet,
        pytest.raises(ServiceError, match="no more memory"),
    ):
        list(fleet.ask(Task("describe", "r", -1), names))


@pytest.mark.chaos
@pytest.mark.slow
def test_the_clients_of_a_killed_worker_are_redone(settings, sites, names, caplog):
    serial = played(settings(), sites, names)
    config = settings("run.workers=1", "local.epochs=1")
    with closing(open_fleet(config, sites, names)) as fleet:
        features = described(fleet, Schema.load(sites))
        task, answers = Task("train", "r", 0, model_of(features), features), []
        for reply in fleet.ask(task, names):
            if not answers:
                for child in active_children():
                    os.kill(child.pid, signal.SIGKILL)
            answers.append(same(reply))
    assert sorted(answers) == serial[: len(names)]
    assert sum("was killed" in record.message for record in caplog.records) <= 1


@pytest.mark.chaos
@pytest.mark.slow
def test_workers_that_die_again_and_again_end_the_round_in_a_sentence(settings, sites, names, monkeypatch):
    from fedcore.simulation import workers

    config = settings("run.workers=1")
    with closing(open_fleet(config, sites, names)) as fleet:
        features = described(fleet, Schema.load(sites))
        monkeypatch.setattr(workers, "_answer", _die)
        with pytest.raises(ServiceError, match="3 times a worker process was killed"):
            list(fleet.ask(Task("train", "r", 0, model_of(features), features), names))


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
