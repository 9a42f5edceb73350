"""Central privacy: the server clips each update again, sums, and adds noise to the sum."""

from collections.abc import Mapping

from fedcore.errors import PlanRefused
from fedcore.protection.mechanisms import MECHANISMS, normal_of
from fedcore.protection.setting import Protection, Setting, secret
from fedcore.state import Adaptive, Charge, Noise
from fedcore.transforms.adaptive import sum_multiplier
from fedcore.transforms.clip import clip


def central(setting: Setting) -> Protection:
    """The private parts of a central plan. The server is trusted with single updates."""
    _refuse_more_than_a_sum(setting)
    _refuse_cohort(setting)
    privacy = setting.privacy
    parts = MECHANISMS[privacy.mechanism](setting)
    adaptive = _adaptive(setting) if privacy.clipping == "adaptive" else None
    deviation = parts.deviation
    if adaptive:
        deviation = privacy.clip * sum_multiplier(privacy.noise_multiplier, adaptive.deviation)
    return Protection(
        chance=secret(setting.config),
        guard=parts.guard,
        noise=Noise(deviation, setting.cohort, normal_of(setting, "noise"), parts.add),
        adaptive=adaptive,
        charge=Charge(parts.event, privacy.delta),
        evaluates=privacy.evaluation != "off",
    )


def _adaptive(setting: Setting) -> Adaptive:
    """Adaptive clipping; its count pays with a share of the noise multiplier, so a round costs the same."""
    privacy = setting.privacy
    return Adaptive(
        start=privacy.clip,
        quantile=privacy.quantile,
        rate=privacy.clip_lr,
        deviation=privacy.count_noise or setting.cohort / 20,
        expected_cohort=setting.cohort,
        normal=normal_of(setting, "count"),
        guard=clip,
    )


def _refuse_cohort(setting: Setting) -> None:
    """Raise `PlanRefused` for a way to draw the cohort that the mechanism is not accounted for."""
    sampling, mechanism, bands = (
        setting.config.cohort.sampling,
        setting.privacy.mechanism,
        setting.privacy.bands,
    )
    if sampling == "uniform" and mechanism != "gaussian":
        raise PlanRefused(
            f"cohort.sampling uniform with privacy.mechanism {mechanism}: a cohort of fixed size has another neighbouring "
            "relation, accounted for with Gaussian noise alone; set privacy.mechanism: gaussian or cohort.sampling: all"
        )
    if sampling == "turns":
        raise PlanRefused(
            "privacy.mode central with cohort.sampling turns: one client more would change whose turn each round is, "
            "which no accountant here covers; set cohort.sampling: cyclic"
        )
    if mechanism in ("tree", "banded") and not (sampling == "cyclic" or (sampling == "all" and bands == 1)):
        raise PlanRefused(
            f"privacy.mechanism {mechanism} with cohort.sampling {sampling} and privacy.bands {bands}: the noise is for "
            f"clients that take part at most once in {bands} rounds, and this does not see to it; "
            "set cohort.sampling: cyclic, or all with privacy.bands: 1"
        )


def _refuse_more_than_a_sum(setting: Setting) -> None:
    """Raise `PlanRefused` for what uses updates other than in the noisy sum, or lets one of them weigh more."""
    config = setting.config
    if config.combine.weights != "equal":
        raise PlanRefused(
            "privacy.mode central with combine.weights samples: one large client would move the sum by more than "
            "the clip the noise is made for; set combine.weights: equal"
        )
    if not setting.combined.sums:
        raise PlanRefused(
            f"privacy.mode central with combine.rule {config.combine.rule} and combine.mixers "
            f"{list(config.combine.mixers)}: the noise is accounted for a plain sum; set combine.rule: mean without mixers"
        )
    if why := _SINGLE_UPDATES.get(config.local.algorithm):
        raise PlanRefused(
            f"privacy.mode central with local.algorithm {config.local.algorithm}: {why}; "
            "set local.algorithm: sgd or fedprox"
        )
    if config.cohort.max_suspicion < 1:
        raise PlanRefused(
            f"privacy.mode central with cohort.max_suspicion {config.cohort.max_suspicion:g}: who is asked would depend "
            "on what clients sent, which no accountant here covers; set cohort.max_suspicion: 1"
        )


_SINGLE_UPDATES: Mapping[str, str] = {
    "scaffold": "control variates are made of single updates and would reach other clients without noise",
    "fednova": "each update would be scaled by its client's rows after the clip that the noise is made for",
    "feddyn": "the server would keep the sum of each client's updates, and what is paid for is their noisy sum alone",
}
