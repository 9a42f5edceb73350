"""A cohort in one computation gives what its clients give one after another, up to rounding."""

import logging
from contextlib import closing

import numpy as np
import pytest
import torch

from fedcore.adapters.model import ModelSpec, Training, build_model
from fedcore.adapters.pytorch_together import Member, Together
from fedcore.coordinator import simulate
from fedcore.data.schema import Schema
from fedcore.errors import BadConfig
from fedcore.rng import generator
from fedcore.simulation import open_fleet
from fedcore.types import Task
from tests.laws.fleets import described, model_of

TORCH = ("model.framework=torch", "run.engine=batched")
CLOSE = {"rtol": 2e-4, "atol": 2e-6}


def both(settings, sites, names, more=(), corrections=False, kind="train", sizes=()):
    """Replies of the serial fleet and of the batched one to one task."""
    found = []
    for engine in ("serial", "batched"):
        config = settings("model.framework=torch", f"run.engine={engine}", *more)
        with closing(open_fleet(config, sites, names)) as fleet:
            features = described(fleet, Schema.load(sites))
            model = model_of(features)
            drawn = generator(2, "corrections").normal(0, 0.01, (len(names), model.size)).astype(np.float32)
            given = dict(zip(names, drawn, strict=True)) if corrections else {}
            task = Task(kind, "r", 3, model, features, given, batch_sizes=dict(sizes))
            found.append(list(fleet.ask(task, names)))
    return found


@pytest.mark.parametrize(
    ("more", "corrections"),
    [
        ((), False),
        (("local.momentum=0.9", "local.weight_decay=0.01", "local.epochs=2"), False),
        (("local.algorithm=fedprox", "local.mu=0.1"), False),
        (("local.algorithm=scaffold",), True),
        (("local.steps=5", "local.batch_size=7"), False),
        (("run.memory_mb=1",), False),
        (("privacy.mode=central", "privacy.delta=0.01", "combine.weights=equal", "privacy.clip=0.05"), False),
    ],
)
def test_clients_that_train_at_once_send_what_each_sends_alone(settings, sites, names, more, corrections):
    alone, together = both(settings, sites, names, more, corrections)
    assert [reply.client for reply in together] == [reply.client for reply in alone] == list(names)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(other.vector, one.vector, **CLOSE)
        assert (other.round, other.model_sha256, other.error) == (one.round, one.model_sha256, None)
        assert set(other.facts) == set(one.facts)
        assert other.facts.get("loss", 0) == pytest.approx(one.facts.get("loss", 0), rel=1e-4)


def test_clients_take_batches_of_their_own_size(settings, sites, names):
    sizes = {names[0]: 5, names[1]: 11}
    for one, other in zip(*both(settings, sites, names, sizes=sizes.items()), strict=True):
        np.testing.assert_allclose(other.vector, one.vector, **CLOSE)


def test_a_module_that_draws_in_training_is_batched_and_follows_the_seed(tmp_path, monkeypatch):
    (tmp_path / "dropping.py").write_text(
        "import torch\ndef make(shape, outputs):\n"
        "    return torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(4, 3))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    model = build_model(ModelSpec("torch", "", (), "dropping:make", (4,), 3, "classification"))
    engine, rng = Together(model, "cpu"), np.random.default_rng(3)
    assert engine.obstacle() is None
    rows = engine.put(rng.normal(size=(6, 4)).astype(np.float32)), engine.put(np.zeros(6, np.float32))
    members = [Member(*rows, [[np.arange(6)]], Training(0.1, 0.0, 0.0, 1, 6))] * 2
    vector = model.init(rng)
    first, again, other = (engine.train(vector, members, seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    assert not np.allclose(first[0], first[1])  # each client draws for itself
    np.testing.assert_allclose(
        engine.scores(vector, rows[0].numpy()), model.scores(vector, rows[0].numpy()), rtol=1e-5
    )


def test_a_client_whose_rows_cannot_be_used_says_so_and_the_others_train(settings, sites, names):
    config = settings("model.framework=torch", "run.engine=batched")
    with closing(open_fleet(config, sites, names)) as fleet:
        features = described(fleet, Schema.load(sites))
        (sites / names[0] / "rows.npz").write_bytes(b"no")
    with closing(open_fleet(config, sites, names)) as fleet:
        for kind in ("train", "evaluate"):
            replies = {
                r.client: r for r in fleet.ask(Task(kind, "r", 0, model_of(features), features), names)
            }
            assert [name for name in names if replies[name].error] == [names[0]]
            assert len(replies) == len(names)


def test_judging_gives_the_same_numbers(settings, sites, names):
    for one, other in zip(*both(settings, sites, names, kind="evaluate"), strict=True):
        assert other.facts["correct"] == one.facts["correct"]
        assert other.facts["loss_sum"] == pytest.approx(one.facts["loss_sum"], rel=1e-5)


@pytest.mark.parametrize(
    ("name", "shape", "outputs", "task", "tokens"),
    [
        ("mlp", (6,), 3, "classification", 0),
        ("mlp", (6,), 1, "classification", 0),
        ("mlp", (6,), 1, "regression", 0),
        ("lenet", (28, 28), 10, "classification", 0),
        ("dwcnn", (3, 8, 8), 4, "classification", 0),
        ("gru", (5,), 7, "classification", 7),
    ],
)
def test_models_of_the_zoo_train_at_once(name, shape, outputs, task, tokens):
    model = build_model(ModelSpec("torch", name, (8,), None, shape, outputs, task, (1.0, 2.0), tokens))
    engine, rng = Together(model, "cpu"), np.random.default_rng(5)
    assert engine.obstacle() is None
    vector, settings = model.init(rng), Training(0.05, 0.5, 0.0, 1, 4)
    sets, expected = [], []
    for rows in (9, 4, 6):
        x = (rng.integers(tokens, size=(rows, *shape)) if tokens else rng.normal(size=(rows, *shape))).astype(
            "f4"
        )
        y = rng.integers(max(outputs, 2), size=rows).astype(np.float32)
        epochs = [[part for part in np.split(rng.permutation(rows), range(4, rows, 4)) if len(part)]]
        sets.append(Member(engine.put(x), engine.put(y), epochs, settings))
        flat, velocity = vector.copy(), np.zeros_like(vector)
        for batch in epochs[0]:
            velocity = np.float32(0.5) * velocity + model.loss_and_gradient(flat, x[batch], y[batch])[1]
            flat -= np.float32(0.05) * velocity
        expected.append(flat - vector)
    updates, losses = engine.train(vector, sets, 1)
    np.testing.assert_allclose(updates, np.stack(expected), rtol=2e-3, atol=2e-6)
    assert np.isfinite(losses).all()


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("return x - x.mean(0)", "its rows see one another"),
        ("return torch.dropout(x, 0.5, self.training) - x.mean(0)", "its rows see one another"),
        ("return x if x.sum() > 0 else -x", "data-dependent control flow"),
    ],
)
def test_a_module_that_cannot_be_batched_is_found(tmp_path, monkeypatch, body, why):
    name = f"odd{len(body)}"
    lines = ["import torch", "class Odd(torch.nn.Module):", "    def forward(self, x):", f"        {body}"]
    lines += ["def make(shape, outputs):", "    return torch.nn.Sequential(Odd(), torch.nn.Linear(4, 3))"]
    (tmp_path / f"{name}.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))
    model = build_model(ModelSpec("torch", "", (), f"{name}:make", (4,), 3, "classification"))
    assert why in str(Together(model, "cpu").obstacle())


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (("model.framework=numpy",), "only torch models are batched"),
        (("model.framework=torch", "personal.algorithm=ditto"), "trains models of their own"),
    ],
)
def test_what_cannot_be_batched_is_done_one_by_one_and_said_once(new_workdir, settings, caplog, more, why):
    plain = simulate(settings(*more), new_workdir("plain"), "a").model_sha256
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert simulate(settings(*more, "run.engine=batched"), new_workdir("many"), "a").model_sha256 == plain
    assert [why in record.message for record in caplog.records].count(True) == 1


def test_a_run_whose_cohorts_train_at_once_reaches_the_metrics_of_the_others(new_workdir, settings):
    plain = simulate(settings("model.framework=torch"), new_workdir("plain"), "a")
    many, again = (simulate(settings(*TORCH), new_workdir(name), "a") for name in ("many", "again"))
    assert many.metrics["accuracy"] == pytest.approx(plain.metrics["accuracy"], abs=0.01)
    assert many.model_sha256 == again.model_sha256


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (("run.engine=batched", "run.device=cuda"), "torch sees no GPU"),
        (("run.device=cuda",), "is not used by engine serial"),
    ],
)
def test_a_device_that_cannot_be_used_is_refused(workdir, settings, more, why, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(BadConfig, match=why):
        simulate(settings("model.framework=torch", *more), workdir, "a")


def mixing(input_shape: tuple[int, ...], outputs: int) -> torch.nn.Module:
    class Centred(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x - x.mean(0)

    return torch.nn.Sequential(Centred(), torch.nn.Flatten(), torch.nn.Linear(64, outputs))


def test_a_gpu_is_not_held_for_clients_that_train_alone_on_the_processor(workdir, settings):
    own = ("model.framework=torch", "model.factory=tests.laws.test_together:mixing")
    with pytest.raises(BadConfig, match=r"run.device: cannot be used: its rows see one another.*use cpu"):
        simulate(settings(*own, "run.engine=batched", "run.device=cuda"), workdir, "a")
