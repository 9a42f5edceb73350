"""Record privacy: each client trains by DP-SGD, and a record of a silo is the unit."""

from fedcore.errors import PlanRefused
from fedcore.privacy.records import costliest, refuse_large_delta
from fedcore.protection.setting import Protection, Setting, from_seed
from fedcore.state import Charge


def record(setting: Setting) -> Protection:
    """Each client's update is private before it leaves: the server adds nothing, and every rule may follow.

    Row counts are public, so they may weigh. A round costs what it costs the silo that pays most,
    whether it was asked or not; cohorts need not be secret.
    """
    config, privacy = setting.config, setting.privacy
    if config.local.algorithm != "sgd":
        raise PlanRefused(
            f"privacy.mode record with local.algorithm {config.local.algorithm}: clients train by DP-SGD, which has no "
            "corrections of its gradients; set local.algorithm: sgd"
        )
    if config.local.steps is not None:
        raise PlanRefused(
            f"privacy.mode record with local.steps {config.local.steps}: DP-SGD takes as many steps as local.epochs says, "
            "and is charged for them; leave local.steps out"
        )
    refuse_large_delta(setting.rows, privacy.delta)
    event = costliest(
        setting.rows.values(),
        config.local.batch_size,
        config.local.epochs,
        privacy.noise_multiplier,
        config.run.rounds,
        privacy.delta,
        privacy.record_rate,
    )
    return Protection(
        chance=from_seed(config),
        charge=Charge(lambda round_number: event, privacy.delta),
        evaluates=privacy.evaluation != "off",
    )
