"""Local algorithms: what each reduces to, and where clients that disagree end up together."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from fedcore.adapters.model import ModelSpec, Training, build_model
from fedcore.config import LocalConfig
from fedcore.local.control import CONTROLS, Plain, control
from fedcore.local.population import Population, Seen
from fedcore.local.scaffold import Scaffold
from fedcore.local.sgd import ALGORITHMS, training
from fedcore.rng import generator
from fedcore.rules.mean import mean

ROWS = {"a": 20, "b": 20, "c": 20, "d": 20}
UNEQUAL = {"a": 20, "b": 40, "c": 80, "d": 160}
LINE = ModelSpec("numpy", "logistic", (), None, (3,), 1, "regression")
LOCAL = LocalConfig(lr=0.05, momentum=0.0, epochs=10, batch_size=20)
Rows = dict[str, tuple[np.ndarray, np.ndarray]]


def people(rows=ROWS) -> Rows:
    """Four clients whose lines differ, and whose rows do too."""
    data = {}
    for number, client in enumerate(rows):
        rng = generator(5, "people", client)
        x = (rng.normal(size=(rows[client], 3)) * (0.5 + 0.2 * number)).astype(np.float32)
        data[client] = x, (x @ rng.normal(size=3) + number).astype(np.float32)
    return data


def optimum(data: Rows, equal: bool = False) -> np.ndarray:
    """What least squares on the rows of all gives, as weights and bias; `equal`: a client counts as one."""
    x = np.concatenate([np.hstack([x, np.ones((len(x), 1))]) for x, _ in data.values()])
    y = np.concatenate([y for _, y in data.values()])
    root = np.concatenate([np.full(len(y), len(y) ** -0.5 if equal else 1.0) for _, y in data.values()])
    return np.linalg.lstsq(x * root[:, None], y * root, rcond=None)[0]


def federated(local: LocalConfig, rounds: int, rows=ROWS, away=lambda number: ()) -> Iterator[np.ndarray]:
    """The model after each round of plain averaging with what `local` adds; `away` says who is, by round."""
    model, data = build_model(LINE), people(rows)
    weights = {client: float(count) for client, count in rows.items()}
    server = control(local, rows, weights)
    vector, kept = np.zeros(4, np.float32), {}
    for number in range(rounds):
        cohort = [client for client in rows if client not in away(number)]
        corrections = server.corrections(kept, vector, cohort)
        updates = {}
        for client in cohort:
            settings = training(local, number, corrections.get(client))
            rng = generator(1, client, number)
            updates[client] = ALGORITHMS[local.algorithm](model, vector, Shard(*data[client]), settings, rng)[
                0
            ]
        matrix = server.scaled(np.stack(list(updates.values())), cohort)
        combined = mean(matrix, np.array([weights[client] for client in cohort]))
        update, kept = server.after(kept, Seen(number, corrections, updates, combined))
        vector = vector + update
        yield vector


class Shard:
    """Rows to train on."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.x_train, self.y_train = x, y


def last(*args, **options) -> np.ndarray:
    return list(federated(*args, **options))[-1]


def distance(vector: np.ndarray, data: Rows) -> float:
    return float(np.linalg.norm(vector - optimum(data)))


def one_away(number: int) -> tuple[str, ...]:
    return (list(ROWS)[number % 4],)


def test_one_client_with_full_batches_is_plain_gradient_descent():
    local, (x, y) = replace(LOCAL, epochs=1), people({"a": 20})["a"]
    model, vector = build_model(LINE), np.zeros(4, np.float32)
    for found in federated(local, 8, {"a": 20}):
        vector = vector - np.float32(local.lr) * model.loss_and_gradient(vector, x, y)[1]
        np.testing.assert_allclose(found, vector, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(
    "changed",
    [{"algorithm": "fedprox", "mu": 0.0}, {"algorithm": "fednova"}, {"algorithm": "feddyn", "alpha": 0.0}],
    ids=lambda changed: changed["algorithm"],
)
def test_it_reduces_to_federated_averaging_to_the_byte(changed, momentum):
    plain = replace(LOCAL, momentum=momentum, epochs=3)
    expected = last(plain, 5, away=one_away)
    assert last(replace(plain, **changed), 5, away=one_away).tobytes() == expected.tobytes()


@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_zero_variates_correct_nothing_to_the_byte(framework):
    spec = replace(LINE, framework=framework)
    model, (x, y), start = build_model(spec), people()["b"], np.ones(4, np.float32)
    population = Population(replace(LOCAL, algorithm="scaffold"), ROWS, dict.fromkeys(ROWS, 1.0))
    kept = dict.fromkeys(ROWS, np.zeros(4, np.float32))
    correction = Scaffold(population).corrections(kept, start, ["b"])["b"]
    trained = [
        model.train(start, x, y, settings, generator(1, "b"))[0].tobytes()
        for settings in (training(LOCAL, 0), training(LOCAL, 0, correction))
    ]
    assert trained[0] == trained[1]


def test_the_first_round_of_scaffold_is_federated_averaging():
    scaffold = replace(LOCAL, algorithm="scaffold")
    assert last(scaffold, 1).tobytes() == last(LOCAL, 1).tobytes()
    assert last(scaffold, 2).tobytes() != last(LOCAL, 2).tobytes()


def test_clients_of_feddyn_train_as_those_of_federated_averaging_as_alpha_vanishes():
    """The clients, not the server: the -h/α of its step does not vanish, at any α above zero."""
    model, (x, y), start = build_model(LINE), people()["c"], np.ones(4, np.float32)
    kept = {"c": np.ones(4, np.float32)}

    def trained(local: LocalConfig, memory: float) -> np.ndarray:
        correction = None if memory == 0 else np.float32(memory) * kept["c"]
        return model.train(start, x, y, training(local, 0, correction), generator(1, "c"))[0]

    plain = trained(LOCAL, 0.0)
    gaps = [
        np.abs(trained(replace(LOCAL, algorithm="feddyn", alpha=alpha), alpha) - plain).max()
        for alpha in (1e-1, 1e-3, 1e-5)
    ]
    assert gaps[0] > 10 * gaps[1] > 100 * gaps[2]
    assert gaps[2] < 1e-5


@pytest.mark.parametrize(
    ("changed", "rounds"),
    [({"algorithm": "scaffold"}, 120), ({"algorithm": "feddyn", "alpha": 0.3}, 120)],
    ids=["scaffold", "feddyn"],
)
@pytest.mark.parametrize("away", [lambda number: (), one_away], ids=["all", "three of four"])
def test_clients_that_disagree_end_at_the_optimum_of_all_where_averaging_does_not(changed, rounds, away):
    data = people()
    assert distance(last(LOCAL, rounds, away=away), data) > 0.1
    assert distance(last(replace(LOCAL, **changed), rounds, away=away), data) < 5e-3


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_normalised_averaging_is_fair_to_clients_that_take_fewer_steps(momentum):
    """With rates so small that nobody drifts, what is left of FedAvg's bias is unequal steps."""
    data = people(UNEQUAL)
    local = LocalConfig(lr=0.02 * (1 - momentum), momentum=momentum, epochs=1, batch_size=20)
    biased = last(local, 300, UNEQUAL)
    fair = last(replace(local, algorithm="fednova"), 300, UNEQUAL)
    assert distance(fair, data) < 0.3 * distance(biased, data)


def test_normalised_averaging_holds_with_changing_cohorts():
    data, local = people(UNEQUAL), LocalConfig(lr=0.05, momentum=0.0, epochs=1, batch_size=20, decay=0.98)
    fair = last(replace(local, algorithm="fednova"), 200, UNEQUAL, away=one_away)
    assert distance(fair, data) < 0.5 * distance(last(local, 200, UNEQUAL, away=one_away), data)


def test_a_stronger_pull_keeps_clients_nearer_to_where_they_start():
    model, (x, y), start = build_model(LINE), people()["d"], np.ones(4, np.float32)
    lengths = []
    for mu in (0.0, 1.0, 10.0):
        settings = training(replace(LOCAL, algorithm="fedprox", mu=mu, lr=0.01), 0)
        lengths.append(np.linalg.norm(model.train(start, x, y, settings, generator(1))[0] - start))
    assert lengths[0] > lengths[1] > lengths[2]


def test_averaging_with_a_pull_converges_with_changing_cohorts():
    prox = replace(LOCAL, algorithm="fedprox", mu=5.0)
    assert distance(last(prox, 150, away=one_away), people()) < distance(
        last(LOCAL, 150, away=one_away), people()
    )


@pytest.mark.parametrize(("momentum", "epochs", "rows"), [(0.0, 3, 25), (0.9, 2, 47), (0.5, 1, 5)])
def test_travel_is_how_far_a_constant_gradient_leads(momentum, epochs, rows):
    local = LocalConfig(momentum=momentum, epochs=epochs, batch_size=10)
    velocity = traveled = 0.0
    for _ in range(epochs * -(-rows // 10)):
        velocity = momentum * velocity + 1.0
        traveled += velocity
    assert Population(local, {"a": rows}, {"a": 1.0}).travel("a") == pytest.approx(traveled)


def test_travel_counts_the_steps_that_are_asked_for():
    asked = LocalConfig(momentum=0.9, epochs=9, batch_size=10, steps=6)
    same = LocalConfig(momentum=0.9, epochs=2, batch_size=10)
    far = [Population(local, {"a": 25}, {"a": 1.0}).travel("a") for local in (asked, same)]
    assert far[0] == far[1]


def test_the_first_variate_of_a_quadratic_is_its_mean_gradient_on_the_way():
    scaffold = Scaffold(Population(LOCAL, {"a": 20}, {"a": 1.0}))
    update = np.full(4, -0.05 * 10 * 2.0, dtype=np.float32)  # ten steps along a gradient of two
    kept = scaffold.after({}, Seen(0, {}, {"a": update}, update))[1]
    np.testing.assert_allclose(kept["a"], 2.0, rtol=1e-6)


def test_the_center_moves_by_the_share_of_the_clients_that_were_asked(rng):
    """c ← c + |S|/N · mean of the changes: SCAFFOLD, algorithm 1, line 17."""
    scaffold = Scaffold(Population(replace(LOCAL, algorithm="scaffold"), ROWS, dict.fromkeys(ROWS, 1.0)))
    zero, cohort = np.zeros(6, np.float32), ["b", "d"]
    kept = {client: rng.normal(size=6).astype(np.float32) for client in ROWS}

    def center(kept):
        return scaffold.corrections({**kept, "new": zero}, zero, ["new"])["new"]

    before, corrections = center(kept), scaffold.corrections(kept, zero, cohort)
    updates = {client: rng.normal(size=6).astype(np.float32) for client in cohort}
    after = scaffold.after(kept, Seen(0, corrections, updates, zero))[1]
    moved = 2 / 4 * np.mean([after[client] - kept[client] for client in cohort], axis=0)
    np.testing.assert_allclose(center(after), before + moved, rtol=1e-4, atol=1e-5)
    assert all(after[client] is kept[client] for client in ("a", "c"))


def test_corrections_of_all_clients_cancel_in_the_weighted_mean(rng):
    weights = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 10.0}
    kept = {client: rng.normal(size=6).astype(np.float32) for client in ROWS}
    found = Scaffold(Population(LOCAL, ROWS, weights)).corrections(kept, np.zeros(6, np.float32), tuple(ROWS))
    summed = sum(weights[client] * found[client].astype(np.float64) for client in ROWS)
    np.testing.assert_allclose(summed, 0, atol=1e-5)


def test_the_servers_memory_of_feddyn_is_the_mean_of_its_clients(rng):
    weights = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 10.0}
    server = CONTROLS["feddyn"](Population(replace(LOCAL, algorithm="feddyn", alpha=0.2), ROWS, weights))
    kept = {}
    for cohort in (["a", "b"], ["b", "c"], ["a", "d"]):
        updates = {client: rng.normal(size=5).astype(np.float32) for client in cohort}
        combined = mean(np.stack(list(updates.values())), np.array([weights[c] for c in cohort]))
        update, kept = server.after(kept, Seen(0, {}, updates, combined))
        np.testing.assert_allclose(update, combined - kept["/h"] / np.float32(0.2), rtol=1e-5, atol=1e-6)
    gradients = sum(weights[c] * -kept[c].astype(np.float64) for c in ROWS) / 16
    np.testing.assert_allclose(kept["/h"], gradients, rtol=1e-4, atol=1e-6)


def test_plain_sgd_and_fedprox_keep_nothing():
    for local in (LocalConfig(), LocalConfig(algorithm="fedprox"), LocalConfig(algorithm="feddyn", alpha=0)):
        assert isinstance(control(local, ROWS, dict.fromkeys(ROWS, 1.0)), Plain)


def test_settings_of_other_algorithms_pull_nothing():
    assert [training(LocalConfig(algorithm=name, mu=0.5, alpha=0.7), 0).proximal for name in ALGORITHMS] == [
        0.0, 0.5, 0.0, 0.0, 0.7,
    ]  # fmt: skip
    assert isinstance(training(LocalConfig(), 0), Training)
