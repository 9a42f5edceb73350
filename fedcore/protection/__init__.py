"""What makes a plan private: who adds which noise, what each round costs, and what is refused as unprovable.

Each mode is a function from a `Setting` to a `Protection`, in a file named after it; `plan.py` puts
its parts into the plan. What the noise is made of is in `transforms/`, what an event costs in `privacy/`.
"""

from collections.abc import Callable, Mapping, Sequence
from math import sqrt

from fedcore.config import Config, PrivacyConfig
from fedcore.errors import PlanRefused
from fedcore.privacy.planning import refuse_hopeless
from fedcore.protection.central import central
from fedcore.protection.evaluation import noised, noisy_summary
from fedcore.protection.local import local
from fedcore.protection.mechanisms import MECHANISMS
from fedcore.protection.record import record
from fedcore.protection.setting import Protection, Setting, from_seed

__all__ = ["Protection", "Setting", "noisy_summary", "protection"]


def protection(setting: Setting) -> Protection:
    """The private parts of the plan of `setting`.

    Raises `PlanRefused` for what would break an assumption that the accountant counts on.
    """
    privacy = setting.privacy
    _refuse_idle_evaluation(privacy)
    if privacy.mode == "none":
        return Protection(from_seed(setting.config), evaluates=privacy.evaluation != "off")
    _refuse_unit(privacy)
    _refuse_mechanism(privacy)
    _refuse_idle_rate(setting.config)
    _refuse_selection(setting)
    if privacy.unit == "client":
        _refuse_delta(privacy, len(setting.rows))
    found = _MODES[privacy.mode](setting)
    if privacy.unit == "client":
        _refuse_hopeless(setting, found)
    return noised(setting, found) if privacy.evaluation == "noised" else found


_MODES: Mapping[str, Callable[[Setting], Protection]] = {"central": central, "local": local, "record": record}
_UNITS: Mapping[str, str] = {"central": "client", "local": "client", "record": "record"}
_KNOWN: Mapping[str, Sequence[str]] = {
    "central": tuple(MECHANISMS),
    "local": ("gaussian", "laplace"),
    "record": ("gaussian",),
}


def _refuse_unit(privacy: PrivacyConfig) -> None:
    unit = _UNITS[privacy.mode]
    if privacy.unit != unit:
        raise PlanRefused(
            f"privacy.mode {privacy.mode} with privacy.unit {privacy.unit}: its noise hides one {unit}, nothing else; "
            f"set privacy.unit: {unit}, or another privacy.mode"
        )


def _refuse_mechanism(privacy: PrivacyConfig) -> None:
    known = _KNOWN[privacy.mode]
    if privacy.mechanism not in known:
        raise PlanRefused(
            f"privacy.mode {privacy.mode} with privacy.mechanism {privacy.mechanism}: nothing here can prove that; "
            f"set privacy.mechanism: {' or '.join(known)}"
        )
    if privacy.clipping == "adaptive" and (privacy.mode, privacy.mechanism) != ("central", "gaussian"):
        raise PlanRefused(
            f"privacy.clipping adaptive with privacy.mode {privacy.mode} and privacy.mechanism {privacy.mechanism}: "
            "the count of unclipped clients is accounted for beside central Gaussian noise alone; "
            "set privacy.clipping: flat"
        )


def _refuse_idle_evaluation(privacy: PrivacyConfig) -> None:
    if privacy.evaluation == "noised" and privacy.mode == "none":
        raise PlanRefused(
            "privacy.evaluation noised with privacy.mode none: no account would count its ε; set privacy.mode, or "
            "privacy.evaluation: clear"
        )


def _refuse_selection(setting: Setting) -> None:
    """Raise `PlanRefused` for cohorts that depend on what clients have or did, where that is not accounted for."""
    mode, chosen, sampling = setting.privacy.mode, setting.chosen, setting.config.cohort.sampling
    if chosen.told:
        raise PlanRefused(
            f"privacy.mode {mode} with cohort.sampling {sampling}: it looks at {chosen.looks}, and under privacy no loss "
            "leaves a client; set cohort.sampling: uniform"
        )
    if chosen.looks and mode == "central":
        raise PlanRefused(
            f"privacy.mode central with cohort.sampling {sampling}: it looks at {chosen.looks}, so one client more would "
            "change who else takes part, which no accountant here covers; set cohort.sampling: poisson"
        )


def _refuse_idle_rate(config: Config) -> None:
    cohort = config.cohort
    if cohort.sampling != "poisson" and cohort.rate < 1:
        raise PlanRefused(
            f"cohort.rate {cohort.rate:g} with cohort.sampling {cohort.sampling}: nobody is drawn at that rate, so it may "
            "not be counted; set cohort.sampling: poisson, or remove cohort.rate"
        )


def _refuse_hopeless(setting: Setting, found: Protection) -> None:
    """Raise `PlanRefused` for noise that drowns what so few clients can say, once the model's size is known."""
    privacy, clients = setting.privacy, len(setting.rows)
    if setting.size is None:
        return
    if found.noise:
        multiplier = (
            found.noise.deviation / privacy.clip * (sqrt(2) if privacy.mechanism == "laplace" else 1.0)
        )
    else:  # every client of the cohort adds its own
        multiplier = privacy.noise_multiplier * sqrt(setting.cohort)
    rate = setting.cohort / clients
    refuse_hopeless(clients, rate, multiplier, setting.size, privacy.max_noise_ratio)


def _refuse_delta(privacy: PrivacyConfig, clients: int) -> None:
    if privacy.delta >= 1 / clients:
        raise PlanRefused(
            f"privacy.delta {privacy.delta:g} with {clients} clients: δ must stay below 1/{clients}, "
            f"or publishing one client whole would count as private; set privacy.delta below {1 / clients:.2g}"
        )
