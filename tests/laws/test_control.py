"""SCAFFOLD: with control variates, clients that disagree end at the optimum of all of them together."""

import numpy as np
import pytest

from fedcore.adapters.model import ModelSpec, build_model
from fedcore.config import LocalConfig
from fedcore.local.control import Control, control
from fedcore.local.sgd import training
from fedcore.rng import generator

LOCAL = LocalConfig(algorithm="scaffold", lr=0.05, momentum=0.0, epochs=10, batch_size=20)
ROWS = {"a": 20, "b": 20, "c": 20, "d": 20}
EQUAL = dict.fromkeys(ROWS, 1.0)
LINE = ModelSpec("numpy", "logistic", (), None, (3,), 1, "regression")


def people() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Four clients whose lines differ, and whose rows do too."""
    data = {}
    for number, client in enumerate(ROWS):
        rng = generator(5, "people", client)
        x = (rng.normal(size=(20, 3)) * (0.5 + 0.5 * number)).astype(np.float32)
        data[client] = x, (x @ rng.normal(size=3) + number).astype(np.float32)
    return data


def optimum() -> np.ndarray:
    """What least squares on the rows of all gives, as weights and bias."""
    data = people().values()
    x = np.concatenate([np.hstack([x, np.ones((20, 1))]) for x, _ in data])
    return np.linalg.lstsq(x, np.concatenate([y for _, y in data]), rcond=None)[0]


def federated(variates: Control | None, rounds: int, absent: bool = False) -> float:
    """The distance from the optimum after some rounds of ten full-batch steps at each client."""
    model, data = build_model(LINE), people()
    vector = np.zeros(4, dtype=np.float32)
    kept: dict[str, np.ndarray] = {}
    for number in range(rounds):
        away = list(ROWS)[number % 4] if absent else None
        cohort = [client for client in ROWS if client != away]
        corrections = variates.corrections(kept, vector, cohort) if variates else {}
        updates = {}
        for client in cohort:
            settings = training(LOCAL, number, corrections.get(client))
            updates[client] = model.train(vector, *data[client], settings, generator(1, client))[0] - vector
        if variates:
            kept = variates.after(kept, corrections, updates, number)
        vector = vector + np.mean(list(updates.values()), axis=0)
    return float(np.linalg.norm(vector - optimum()))


def test_drift_is_corrected_where_averaging_keeps_it():
    assert federated(None, 300) > 0.1
    assert federated(Control(LOCAL, ROWS, EQUAL), 300) < 1e-3


def test_it_holds_when_a_client_is_away_each_round():
    assert federated(None, 600, absent=True) > 0.1
    assert federated(Control(LOCAL, ROWS, EQUAL), 600, absent=True) < 1e-2


@pytest.mark.parametrize(("momentum", "epochs", "rows"), [(0.0, 3, 25), (0.9, 2, 47), (0.5, 1, 5)])
def test_travel_is_how_far_a_constant_gradient_leads(momentum, epochs, rows):
    local = LocalConfig(algorithm="scaffold", momentum=momentum, epochs=epochs, batch_size=10)
    velocity = distance = 0.0
    for _ in range(epochs * -(-rows // 10)):
        velocity = momentum * velocity + 1.0
        distance += velocity
    assert Control(local, {"a": rows}, {"a": 1.0}).travel("a") == pytest.approx(distance)


def test_travel_counts_the_steps_that_are_asked_for():
    asked = LocalConfig(algorithm="scaffold", momentum=0.9, epochs=9, batch_size=10, steps=6)
    same = LocalConfig(algorithm="scaffold", momentum=0.9, epochs=2, batch_size=10)
    far = [Control(local, {"a": 25}, {"a": 1.0}).travel("a") for local in (asked, same)]
    assert far[0] == far[1]


def test_the_first_variate_of_a_quadratic_is_its_mean_gradient_on_the_way():
    variates = Control(LOCAL, {"a": 20}, {"a": 1.0})
    update = np.full(4, -0.05 * 10 * 2.0, dtype=np.float32)  # ten steps along a gradient of two
    np.testing.assert_allclose(variates.after({}, {}, {"a": update}, 0)["a"], 2.0, rtol=1e-6)


def test_corrections_of_all_clients_cancel_in_the_weighted_mean(rng):
    weights = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 10.0}
    kept = {client: rng.normal(size=6).astype(np.float32) for client in ROWS}
    found = Control(LOCAL, ROWS, weights).corrections(kept, np.zeros(6, np.float32), tuple(ROWS))
    summed = sum(weights[client] * found[client].astype(np.float64) for client in ROWS)
    np.testing.assert_allclose(summed, 0, atol=1e-5)


def test_whoever_did_not_answer_keeps_the_variate_it_had(rng):
    kept = {client: rng.normal(size=4).astype(np.float32) for client in ROWS}
    after = Control(LOCAL, ROWS, EQUAL).after(kept, {}, {"b": np.ones(4, np.float32)}, 2)
    assert [client for client in ROWS if after[client] is kept[client]] == ["a", "c", "d"]


def test_plain_sgd_has_no_variates():
    assert control(LocalConfig(), ROWS, EQUAL) is None
