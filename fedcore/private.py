"""What a privately combined round does differently: clip, count, sum, add noise, move the clipping norm.

Pure functions of the state and the plan, called by the steps of `round.py`. What they are made of
is decided in `protection/`.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from fedcore.state import Noise, Plan, State
from fedcore.transforms.adaptive import following, vote
from fedcore.transforms.clip import norm
from fedcore.transforms.noise import add_gaussian
from fedcore.types import Arrays, Floats, Reply, Transform, Vector


def limit(state: State, plan: Plan) -> float | None:
    """The norm that updates of this round are clipped to where it is adaptive, else None."""
    if plan.adaptive is None:
        return None
    return plan.adaptive.start if state.clip is None else state.clip


def guard(state: State, plan: Plan) -> Transform:
    """What the server enforces on each update of this round: clients are not trusted to clip."""
    at = limit(state, plan)
    return plan.guard if plan.adaptive is None or at is None else plan.adaptive.guard(at)


def summed(
    state: State, plan: Plan, replies: Iterable[Reply], updates: Iterable[Vector]
) -> dict[str, Floats]:
    """The sum (d,) of guarded `updates` and, for adaptive clipping, the count (1,) of votes over `replies`.

    Arrays, because facts are shown: both are private until noise is added. No update at all sums
    to zero. The order of the updates decides the last bits, so callers keep it.
    """
    total = np.zeros(state.model.size, dtype=np.float64)
    for update in updates:
        total += update
    at = limit(state, plan)
    if at is None:
        return {"sum": total}
    votes = [
        vote(norm(reply.vector), at, reply.facts.get("unclipped", True) is True)
        for reply in replies
        if reply.vector is not None
    ]
    return {"sum": total, "count": np.array([sum(votes)], dtype=np.float64)}


def noisy_mean(state: State, plan: Plan, noise: Noise, total: Floats) -> tuple[Vector, Mapping[str, Floats]]:
    """(sum + noise) / expected cohort, and what the noise remembers.

    The divisor is fixed: how many took part is private. Correlated noise gets its deviation of
    the whole run, so adaptive clipping never meets it.
    """
    at = limit(state, plan)
    scale = 1.0 if plan.adaptive is None or at is None else at / plan.adaptive.start
    deviation = noise.deviation * scale
    remembers: Mapping[str, Floats] = {}
    if noise.mechanism is None:
        noisy = add_gaussian(total, deviation, noise.normal(state.round))
    else:
        noisy, remembers = noise.mechanism(total, deviation, state.round, state.noise)
    return (noisy / noise.expected_cohort).astype(np.float32), remembers


def next_limit(state: State, plan: Plan, private: Arrays) -> float | None:
    """The clipping norm of the next round: a release, from the noisy count; None unless adaptive."""
    adaptive, at = plan.adaptive, limit(state, plan)
    if adaptive is None or at is None:
        return None
    count = add_gaussian(private["count"], adaptive.deviation, adaptive.normal(state.round))
    share = 0.5 + float(count[0]) / adaptive.expected_cohort
    return following(at, share, adaptive.quantile, adaptive.rate)
