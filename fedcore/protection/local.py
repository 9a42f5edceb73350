"""Local privacy: each client adds noise to its own update before it leaves."""

from fedcore.errors import PlanRefused
from fedcore.privacy.events import LocalRelease
from fedcore.protection.setting import Protection, Setting, from_seed
from fedcore.state import Charge


def local(setting: Setting) -> Protection:
    """Each client clips its update and adds noise before it leaves: the server is trusted with nothing.

    Whatever the server does with noisy updates costs nothing more, so every rule may follow and the
    cohort need not be secret. A client pays in each round it takes part in; the account is
    charged as if one took part in all.
    """
    config, privacy = setting.config, setting.privacy
    if config.combine.weights != "equal":
        raise PlanRefused(
            "privacy.mode local with combine.weights samples: how many rows a client has would shape the model "
            "without noise; set combine.weights: equal"
        )
    if config.local.algorithm in ("scaffold", "fednova"):
        raise PlanRefused(
            f"privacy.mode local with local.algorithm {config.local.algorithm}: how many rows a client has tells how many "
            "steps it took, and would shape the model without noise; set local.algorithm: sgd, fedprox or feddyn"
        )
    event = LocalRelease(privacy.noise_multiplier, privacy.mechanism)
    return Protection(
        chance=from_seed(config),
        charge=Charge(lambda round_number: event, privacy.delta),
        evaluates=privacy.evaluation != "off",
    )
