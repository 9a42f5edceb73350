"""What the server does with the combined update: ``(init, step)``, both pure.

`step(model, update, state) -> (model, state)`, where `update` points from the old model to the
clients' mean, so that plain SGD with rate 1 is FedAvg. An optimizer is a direction (its state: a
few vectors) and a rate: a number, or a function of how many steps were taken. All but plain SGD
are of Reddi et al. 2021, arXiv:2003.00295, algorithm 2, or Hsu et al. 2019, arXiv:1909.06335.
"""

from collections.abc import Callable, Mapping
from math import cos, isfinite, pi
from typing import NamedTuple, TypeAlias

import numpy as np

from fedcore.config import ServerConfig
from fedcore.errors import BadConfig, UnknownName
from fedcore.types import Floats, Vector

OptimizerState = Mapping[str, Vector]
Rate: TypeAlias = float | Callable[[int], float]  # steps taken -> learning rate
Wide: TypeAlias = dict[str, Floats]
_TAKEN = "steps"


class Optimizer(NamedTuple):
    """A server optimizer: ``init(model) -> state``, ``step(model, update, state) -> (model, state)``."""

    init: Callable[[Vector], OptimizerState]
    step: Callable[[Vector, Vector, OptimizerState], tuple[Vector, OptimizerState]]


def sgd(lr: Rate) -> Optimizer:
    """model + lr · update, in float64 with one rounding. Reddi et al. 2021, algorithm 1."""
    return _optimizer(lr, {}, lambda update, state, taken: (update, state))


def momentum(lr: Rate, beta: float = 0.9) -> Optimizer:
    """model + lr · v with v ← beta · v + update: FedAvgM. Hsu et al. 2019, section 3."""

    def direction(update: Floats, state: Wide, taken: int) -> tuple[Floats, Wide]:
        velocity = beta * state["velocity"] + update
        return velocity, {"velocity": velocity}

    return _optimizer(lr, {"velocity": 0.0}, direction)


def adagrad(lr: Rate, beta: float = 0.0, tau: float = 1e-3) -> Optimizer:
    """FedAdagrad: v ← v + update². `tau` is how well it adapts; v starts at tau²."""
    return _adaptive(lr, beta, tau, lambda v, squared: v + squared)


def adam(
    lr: Rate, beta: float = 0.9, beta2: float = 0.99, tau: float = 1e-3, corrected: bool = False
) -> Optimizer:
    """FedAdam: v ← beta2 · v + (1 - beta2) · update².

    Where it is `corrected`, m and v are divided by what their start at zero took from them, as in Adam itself
    (Kingma & Ba 2015, algorithm 1), which FedAdam leaves out: its first steps are then no longer than the rate.
    """
    powers = (beta, beta2) if corrected else None
    return _adaptive(lr, beta, tau, lambda v, squared: beta2 * v + (1 - beta2) * squared, powers)


def yogi(lr: Rate, beta: float = 0.9, beta2: float = 0.99, tau: float = 1e-3) -> Optimizer:
    """FedYogi: v ← v - (1 - beta2) · update² · sign(v - update²)."""
    return _adaptive(lr, beta, tau, lambda v, squared: v - (1 - beta2) * squared * np.sign(v - squared))


OPTIMIZERS: Mapping[str, Callable[[ServerConfig, Rate], Optimizer]] = {
    "sgd": lambda config, lr: sgd(lr),
    "momentum": lambda config, lr: momentum(lr, config.beta),
    "adagrad": lambda config, lr: adagrad(lr, config.beta, config.tau),
    "adam": lambda config, lr: adam(lr, config.beta, config.beta2, config.tau, config.bias_correction),
    "yogi": lambda config, lr: yogi(lr, config.beta, config.beta2, config.tau),
}


def optimizer(config: ServerConfig) -> Optimizer:
    """The optimizer that `config` names, at the rate of its schedule. Raises `UnknownName`."""
    if config.optimizer not in OPTIMIZERS:
        raise UnknownName("server optimizer", config.optimizer, OPTIMIZERS)
    if config.bias_correction and config.optimizer != "adam":
        raise BadConfig(
            "server.bias_correction",
            True,
            f"is adam's; {config.optimizer} has none, set server.optimizer: adam",
        )
    return OPTIMIZERS[config.optimizer](config, schedule(config))


def schedule(config: ServerConfig) -> Rate:
    """The rate after so many steps; a plain number if it never changes.

    It rises over `warmup` steps, then stays, falls by `decay` each step, or falls along a cosine
    to zero over `period` steps.
    """
    if config.schedule == "constant" and not config.warmup:
        return config.lr

    def rate(taken: int) -> float:
        after = max(0, taken - config.warmup)
        rise = min(1.0, (taken + 1) / (config.warmup + 1))
        fall = {
            "constant": 1.0,
            "exponential": config.decay**after,
            "cosine": (1 + cos(pi * min(1.0, after / config.period))) / 2,
        }
        return config.lr * rise * fall[config.schedule]

    return rate


def _adaptive(
    lr: Rate,
    beta: float,
    tau: float,
    second: Callable[[Floats, Floats], Floats],
    powers: tuple[float, float] | None = None,
) -> Optimizer:
    """model + lr · m / (√v + tau) with m ← beta · m + (1 - beta) · update and v by `second`.

    With `powers`, m and v are divided by 1 minus the first and the second to the power of the steps.
    """
    if not (isfinite(tau) and tau > 0):
        raise BadConfig("server.tau", tau, "must be finite and above zero")

    def direction(update: Floats, state: Wide, taken: int) -> tuple[Floats, Wide]:
        first = beta * state["first"] + (1 - beta) * update
        squares = second(state["second"], update * update)
        low, high = (1.0 - power ** (taken + 1) for power in powers) if powers else (1.0, 1.0)
        return first / low / (np.sqrt(squares / high) + tau), {"first": first, "second": squares}

    return _optimizer(
        lr, {"first": 0.0, "second": 0.0 if powers else tau * tau}, direction, powers is not None
    )


def _optimizer(
    lr: Rate,
    start: Mapping[str, float],
    direction: Callable[[Floats, Wide, int], tuple[Floats, Wide]],
    counted: bool = False,
) -> Optimizer:
    """A direction and a rate as an optimizer: float64 inside, float32 kept; steps are counted where one needs it."""
    counts = counted or callable(lr)

    def init(model: Vector) -> OptimizerState:
        state = {name: np.full_like(model, value) for name, value in start.items()}
        return state | ({_TAKEN: np.zeros(1, np.float32)} if counts else {})

    def step(model: Vector, update: Vector, state: OptimizerState) -> tuple[Vector, OptimizerState]:
        taken = int(state[_TAKEN][0]) if counts else 0
        wide = {name: state[name].astype(np.float64) for name in start}
        moved, after = direction(update.astype(np.float64), wide, taken)
        rate = lr(taken) if callable(lr) else lr
        kept = {name: vector.astype(np.float32) for name, vector in after.items()}
        kept |= {_TAKEN: np.full(1, taken + 1, np.float32)} if counts else {}
        return (model.astype(np.float64) + rate * moved).astype(np.float32), kept

    return Optimizer(init, step)
