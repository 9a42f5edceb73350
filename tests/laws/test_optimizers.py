"""Server optimizers against their formulas, step by step; state in, state out, nothing kept inside."""

import numpy as np
import pytest

from fedcore.config import ServerConfig
from fedcore.errors import BadConfig, UnknownName
from fedcore.optimizers import OPTIMIZERS, adagrad, adam, momentum, optimizer, schedule, sgd, yogi

MODEL = np.array([1.0, -2.0, 0.5], np.float32)
UPDATES = [np.array(u, np.float32) for u in ([0.5, -1.0, 0.0], [0.1, 0.2, -0.3], [-0.4, 0.1, 2.0])]


def walk(chosen, updates=UPDATES):
    model, state = MODEL, chosen.init(MODEL)
    for update in updates:
        model, state = chosen.step(model, update, state)
    return model, state


def test_sgd_at_rate_one_moves_to_the_mean_and_keeps_nothing():
    moved, state = sgd(1.0).step(MODEL, UPDATES[0], sgd(1.0).init(MODEL))
    np.testing.assert_array_equal(moved, [1.5, -3.0, 0.5])
    assert state == {}


def test_momentum_without_memory_is_sgd():
    assert walk(momentum(0.7, 0.0))[0].tobytes() == walk(sgd(0.7))[0].tobytes()


def test_momentum_adds_up_what_came_before():
    model, velocity = MODEL.astype(float), np.zeros(3)
    for update in UPDATES:
        velocity = 0.9 * velocity + update
        model = model + 0.5 * velocity
    np.testing.assert_allclose(walk(momentum(0.5, 0.9))[0], model, rtol=1e-6)


SECOND = {
    adagrad: lambda v, u: v + u * u,
    adam: lambda v, u: 0.99 * v + 0.01 * u * u,
    yogi: lambda v, u: v - 0.01 * u * u * np.sign(v - u * u),
}


@pytest.mark.parametrize("kind", SECOND)
@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_adaptive_optimizers_follow_algorithm_2(kind, beta):
    model, first, second = MODEL.astype(float), np.zeros(3), np.full(3, 1e-6)
    for update in UPDATES:
        first = beta * first + (1 - beta) * update
        second = SECOND[kind](second, update.astype(float))
        model = model + 0.1 * first / (np.sqrt(second) + 1e-3)
    found, state = walk(kind(0.1, beta=beta, tau=1e-3))
    np.testing.assert_allclose(found, model, rtol=1e-5)
    assert {name: vector.dtype for name, vector in state.items()} == {
        "first": np.float32,
        "second": np.float32,
    }


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_depends_on_its_arguments_only_and_changes_none(name):
    chosen = optimizer(ServerConfig(optimizer=name, lr=0.1, schedule="cosine", period=5))
    model, state = walk(chosen)
    before = {key: value.copy() for key, value in state.items()}
    first, second = chosen.step(model, UPDATES[0], state), chosen.step(model, UPDATES[0], state)
    assert first[0].tobytes() == second[0].tobytes()
    assert first[0].dtype == np.float32
    for key, value in state.items():
        np.testing.assert_array_equal(value, before[key])
    assert int(state["steps"][0]) == 3


@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        ({"schedule": "constant", "warmup": 3}, [0.25, 0.5, 0.75, 1, 1]),
        ({"schedule": "exponential", "decay": 0.5}, [1, 0.5, 0.25]),
        ({"schedule": "cosine", "period": 4}, [1, 0.853553, 0.5, 0.146447, 0, 0]),
        ({"schedule": "exponential", "decay": 0.5, "warmup": 1}, [0.5, 1, 0.5]),
    ],
)
def test_schedules_rise_and_fall(settings, rates):
    rate = schedule(ServerConfig(lr=2.0, **settings))
    np.testing.assert_allclose([rate(step) for step in range(len(rates))], 2 * np.array(rates), atol=1e-5)


def test_a_rate_that_never_changes_counts_no_steps():
    assert schedule(ServerConfig(lr=0.3)) == 0.3
    assert "steps" not in momentum(0.3).init(MODEL)


@pytest.mark.parametrize("rate", [{"lr": 0.1}, {"lr": 0.1, "schedule": "exponential", "decay": 0.9}])
def test_with_its_bias_corrected_adam_is_torchs(rate):
    torch = pytest.importorskip("torch")
    chosen = optimizer(ServerConfig(optimizer="adam", beta2=0.999, tau=1e-8, bias_correction=True, **rate))
    rng, model = np.random.default_rng(3), MODEL
    state, theirs = chosen.init(model), torch.nn.Parameter(torch.from_numpy(model.copy()))
    adam_of_torch = torch.optim.Adam([theirs], lr=0.1, betas=(0.9, 0.999), eps=1e-8)
    for _ in range(30):
        gradient = rng.normal(size=model.size).astype(np.float32)
        theirs.grad = torch.from_numpy(gradient)
        adam_of_torch.step()
        adam_of_torch.param_groups[0]["lr"] *= rate.get("decay", 1.0)
        model, state = chosen.step(model, -gradient, state)
        np.testing.assert_allclose(model, theirs.detach().numpy(), rtol=1e-5, atol=1e-6)
    assert int(state["steps"][0]) == 30


def test_what_cannot_be_is_refused():
    with pytest.raises(BadConfig, match="is adam's; yogi has none, set server.optimizer: adam"):
        optimizer(ServerConfig(optimizer="yogi", bias_correction=True))
    with pytest.raises(UnknownName, match="known: adagrad, adam, momentum, sgd, yogi"):
        optimizer(ServerConfig(optimizer="adamw"))
    with pytest.raises(BadConfig, match="tau"):
        adam(0.1, tau=0.0)
