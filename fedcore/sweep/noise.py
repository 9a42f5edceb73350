"""From a target ε to the noise multiplier that spends it: a search over the accountant, in one place."""

from fedcore.config import Config
from fedcore.errors import BadInput, PlanRefused
from fedcore.privacy.accountant import epsilon
from fedcore.privacy.events import GaussianSum
from fedcore.selection import selection

_PRECISION = 1e-3  # of the multiplier; it is rounded up, so that ε stays within the target
_LARGEST = 1e6


def noise_for(config: Config, target: float) -> float:
    """The smallest noise multiplier (to 0.1 %) at which all rounds of `config` together stay within `target`.

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
    rate = selection(config.cohort).amplifies_at

    def spent(multiplier: float) -> float:
        return epsilon([GaussianSum(multiplier, rate)] * config.run.rounds, privacy.delta)

    high = 1.0
    while spent(high) > target:
        high *= 2
        if high > _LARGEST:
            raise BadInput(
                f"no noise multiplier up to {_LARGEST:g} reaches ε = {target:g}; ask for a larger ε"
            )
    low = high / 2
    while spent(low) <= target and low > _PRECISION:
        high, low = low, low / 2
    while high / low > 1 + _PRECISION:
        middle = (high * low) ** 0.5
        high, low = (middle, low) if spent(middle) <= target else (high, middle)
    return (
        float(f"{high * (1 + _PRECISION / 10):.4g}")
        if spent(float(f"{high:.4g}")) > target
        else float(f"{high:.4g}")
    )
