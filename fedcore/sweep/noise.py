"""From a target ε to the noise multiplier that spends it: a search over the accountant, in one place."""

from collections.abc import Callable
from math import ceil, floor, log, log10, sqrt

from fedcore.config import Config
from fedcore.errors import BadInput, PlanRefused
from fedcore.privacy.accountant import epsilon
from fedcore.privacy.events import GaussianSum
from fedcore.selection import selection

CLOSE = 2e-3  # of the target: what may be left unspent
_STEP = 1.4
_LARGEST = 1e6


def noise_for(config: Config, target: float) -> float:
    """The noise multiplier at which all rounds of `config` spend `target`, or at most 0.2 % less.

    Raises `BadInput` for a target that is not above zero or that no noise reaches, `PlanRefused`
    for a mechanism whose ε does not follow from the multiplier alone.
    """
    privacy = config.privacy
    if not target > 0:
        raise BadInput(
            f"ε must be above zero, got {target:g}; a smaller ε asks for more noise, none for infinite"
        )
    if (privacy.mode, privacy.mechanism, privacy.clipping) != ("central", "gaussian", "flat"):
        raise PlanRefused(
            f"a sweep over ε finds the noise of central Gaussian privacy with a flat clip, got privacy.mode "
            f"{privacy.mode}, mechanism {privacy.mechanism}, clipping {privacy.clipping}; set those three"
        )
    rate, rounds = selection(config).amplifies_at, config.run.rounds

    def over(multiplier: float) -> float:
        """log(ε / target): falls as the multiplier rises."""
        return log(max(epsilon([GaussianSum(multiplier, rate)] * rounds, privacy.delta), 1e-12) / target)

    guess = max(0.3, (rate or 1.0) * sqrt(2 * rounds * log(1.25 / privacy.delta)) / target)
    return _root(over, guess, target)


def _root(over: Callable[[float], float], guess: float, target: float) -> float:
    """Where `over` is 0 or little less: bracketed from `guess`, then false position (Illinois) in the logarithm."""
    low = high = guess
    above = below = over(guess)
    while above <= 0:
        high, below, low = low, above, low / _STEP
        above = over(low)
    while below > 0:
        low, above, high = high, below, high * _STEP
        below = over(high)
        if high > _LARGEST:
            raise BadInput(
                f"no noise multiplier up to {_LARGEST:g} reaches ε = {target:g}; ask for a larger ε"
            )
    weight, last = 1.0, 0
    while below < -CLOSE and high / low > 1 + 1e-6:
        share = above / (above - below * weight)
        middle = low * (high / low) ** min(0.95, max(0.05, share))
        found = over(middle)
        if found > 0:
            low, above, weight, last = middle, found, (weight / 2 if last > 0 else 1.0), 1
        else:
            high, below, weight, last = middle, found, 1.0, -1
    digits = 10.0 ** (floor(log10(high)) - 4)
    return round(ceil(high / digits) * digits, 10)
