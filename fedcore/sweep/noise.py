"""From a target ε to the noise multiplier that spends it, for the mechanism that a sweep varies."""

from fedcore.config import Config
from fedcore.config.evaluate import times_due
from fedcore.errors import BadInput, PlanRefused
from fedcore.privacy.calibrate import NOTHING, calibrate
from fedcore.privacy.events import GaussianSum
from fedcore.protection.evaluation import evaluation_event
from fedcore.selection import selection


def noise_for(config: Config, target: float) -> float:
    """The noise multiplier at which all rounds of `config` spend `target` or a little less.

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
    if config.cohort.sampling == "uniform":
        raise PlanRefused(
            "a sweep over ε finds the noise for everyone or Poisson cohorts, got cohort.sampling uniform; "
            "set cohort.sampling: poisson or all"
        )
    rate = selection(config).amplifies_at
    rounds, beside = config.run.rounds, NOTHING
    if privacy.evaluation == "noised":
        judged = times_due(rounds, config.evaluate.every, rounds)
        beside = beside.plus(evaluation_event(privacy, rate), judged)
    return calibrate(lambda multiplier: GaussianSum(multiplier, rate), rounds, privacy.delta, target, beside)
