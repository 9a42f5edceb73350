"""From ε to the noise that keeps it: the inverse of the accountant."""

import math
from collections.abc import Callable

from fedcore.errors import BadInput
from fedcore.privacy.accountant import Account
from fedcore.privacy.events import Event

NOTHING = Account()
_CLOSE = 1e-4  # how much larger than the smallest sufficient noise the answer may be, relative
_MOST = 1e9


def calibrate(
    event: Callable[[float], Event],
    rounds: int,
    delta: float,
    epsilon: float,
    beside: Account = NOTHING,
) -> float:
    """The smallest noise multiplier, within 0.01 % and never below, with which `rounds` releases keep `epsilon`.

    What is released `beside` them is kept within it too. `event` makes a round's event from a noise
    multiplier. ε falls as noise grows, so the two ends of the search close in on it, and the end that
    keeps ε is returned: its ε was computed.
    Raises `BadInput` for an ε that is not above 0 or that no noise keeps, and as `Account.epsilon`.
    """
    if not 0 < epsilon < math.inf:
        raise BadInput(f"epsilon must be above 0, got {epsilon:g}; 1 is strong, 8 is common")

    if beside.counts and beside.epsilon(delta) > epsilon:
        raise BadInput(
            f"the evaluations alone cost ε = {beside.epsilon(delta):.4g} of {epsilon:g} at δ = {delta:g}; raise "
            "privacy.evaluation_noise, or evaluate.every"
        )

    def kept(multiplier: float) -> bool:
        return beside.plus(event(multiplier), rounds).epsilon(delta) <= epsilon

    high = 1.0
    while not kept(high):
        high *= 2
        if high > _MOST:
            raise BadInput(
                f"no noise keeps ε = {epsilon:g} at δ = {delta:g}; ask for a larger ε or fewer rounds"
            )
    low = high / 2
    while high <= 1 and low > 1 / _MOST and kept(low):
        low, high = low / 2, low
    while high > low * (1 + _CLOSE):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if kept(middle) else (middle, high)
    return high
