"""What makes a plan private: who adds which noise, what each round costs, and what is refused as unprovable.

Each mode is a function from the settings to a `Protection`; `plan.py` puts its parts into the plan.
What the noise is made of is in `transforms/`, what an event costs in `privacy/`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from fedcore.config import Config, PrivacyConfig
from fedcore.errors import PlanRefused
from fedcore.privacy.events import Event, FixedSizeSum, GaussianSum, LocalRelease
from fedcore.rng import generator, secret_generator
from fedcore.rules import Aggregation
from fedcore.selection import Selection
from fedcore.state import Adaptive, Charge, Noise
from fedcore.transforms.adaptive import sum_multiplier
from fedcore.transforms.chain import identity
from fedcore.transforms.clip import clip
from fedcore.transforms.noise import Normal, seeded_normal, system_normal
from fedcore.types import Transform

Chance = Callable[[str, int], np.random.Generator]  # run, round -> what the cohort is drawn with


@dataclass(frozen=True)
class Protection:
    """The private parts of a plan; what each is, `fedcore.state.Plan` says."""

    chance: Chance
    guard: Transform = identity
    noise: Noise | None = None
    adaptive: Adaptive | None = None
    charge: Charge | None = None
    evaluates: bool = True


@dataclass(frozen=True)
class Setting:
    """What a mode is given: the settings, and what they were made into so far."""

    config: Config
    rows: Mapping[str, int]  # training rows of each client
    chosen: Selection
    combined: Aggregation
    dimension: int | None  # of the model, None if its features are not known yet
    run: str

    @property
    def privacy(self) -> PrivacyConfig:
        """The section ``privacy``."""
        return self.config.privacy

    @property
    def cohort(self) -> float:
        """How many clients a round asks on average: fixed before anyone answers."""
        clients = len(self.rows)
        if self.config.cohort.sampling == "uniform":
            return float(self.config.cohort.size)
        rate = self.chosen.amplifies_at
        return clients * (1.0 if rate is None else rate)


def protection(setting: Setting) -> Protection:
    """The private parts of the plan of `setting`.

    Raises `PlanRefused` for what would break an assumption that the accountant counts on.
    """
    privacy = setting.privacy
    if privacy.mode == "none":
        return Protection(_from_seed(setting.config), evaluates=privacy.evaluation == "clear")
    _refuse_unit(privacy)
    _refuse_mechanism(privacy)
    _refuse_idle_rate(setting.config)
    if privacy.unit == "client":
        _refuse_delta(privacy, len(setting.rows))
    return MODES[privacy.mode](setting)


def central(setting: Setting) -> Protection:
    """The server clips each update again, sums, and adds noise to the sum."""
    _refuse_more_than_a_sum(setting)
    privacy = setting.privacy
    adaptive = _adaptive(setting) if privacy.clipping == "adaptive" else None
    multiplier = privacy.noise_multiplier
    if adaptive:
        multiplier = sum_multiplier(multiplier, adaptive.deviation)
    guard = clip(privacy.clip)
    noise = Noise(
        deviation=multiplier * guard.bound(inf),
        expected_cohort=setting.cohort,
        normal=_source(setting, "noise"),
    )
    event = _sum_event(setting)
    return Protection(
        chance=_secret(setting.config),
        guard=guard,
        noise=noise,
        adaptive=adaptive,
        charge=Charge(lambda round_number: event, privacy.delta),
        evaluates=privacy.evaluation == "clear",
    )


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
    event = LocalRelease(privacy.noise_multiplier, privacy.mechanism)
    return Protection(
        chance=_from_seed(config),
        charge=Charge(lambda round_number: event, privacy.delta),
        evaluates=privacy.evaluation == "clear",
    )


def record(setting: Setting) -> Protection:
    """Each client trains by DP-SGD, and a record of a silo is the unit."""
    raise PlanRefused("privacy.mode record cannot be run yet; set privacy.mode: central or local")


MODES: Mapping[str, Callable[[Setting], Protection]] = {"central": central, "local": local, "record": record}
MECHANISMS: Mapping[str, Sequence[str]] = {
    "central": ("gaussian",),
    "local": ("gaussian",),
    "record": ("gaussian",),
}
_UNITS: Mapping[str, str] = {"central": "client", "local": "client", "record": "record"}


def _sum_event(setting: Setting) -> Event:
    """What a round of central privacy releases."""
    multiplier, clients = setting.privacy.noise_multiplier, len(setting.rows)
    if setting.config.cohort.sampling == "uniform":
        return FixedSizeSum(multiplier, setting.config.cohort.size, clients)
    return GaussianSum(multiplier, setting.chosen.amplifies_at)


def _adaptive(setting: Setting) -> Adaptive:
    """Adaptive clipping; its count pays with a share of the noise multiplier, so a round costs the same."""
    privacy = setting.privacy
    return Adaptive(
        start=privacy.clip,
        quantile=privacy.quantile,
        rate=privacy.clip_lr,
        deviation=privacy.count_noise or setting.cohort / 20,
        expected_cohort=setting.cohort,
        normal=_source(setting, "count"),
        guard=clip,
    )


def _source(setting: Setting, purpose: str) -> Callable[[int], Normal]:
    """Where the normal numbers of a round come from: the system, or in a simulation the seed."""
    seed, run = setting.config.seed, setting.run
    if setting.privacy.noise == "seeded":
        return lambda round_number: seeded_normal(generator(seed, purpose, run, round_number))
    return lambda round_number: system_normal


def _from_seed(config: Config) -> Chance:
    """Cohorts from the seed and the run's name: runs of one seed have cohorts of their own."""
    return lambda run, round_number: generator(config.seed, "cohort", run, round_number)


def _secret(config: Config) -> Chance:
    """Cohorts that nobody can compute: amplification counts on it, and the seed stands in ``params.yaml``.

    A simulation draws from the seed and the run: two private runs of one seed must not share their
    cohorts, or their amplification would not compose.
    """
    if config.privacy.noise == "seeded":
        return _from_seed(config)
    return lambda run, round_number: secret_generator()


def _refuse_unit(privacy: PrivacyConfig) -> None:
    unit = _UNITS[privacy.mode]
    if privacy.unit != unit:
        raise PlanRefused(
            f"privacy.mode {privacy.mode} with privacy.unit {privacy.unit}: its noise hides one {unit}, nothing else; "
            f"set privacy.unit: {unit}, or another privacy.mode"
        )


def _refuse_mechanism(privacy: PrivacyConfig) -> None:
    known = MECHANISMS[privacy.mode]
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


def _refuse_idle_rate(config: Config) -> None:
    cohort = config.cohort
    if cohort.sampling != "poisson" and cohort.rate < 1:
        raise PlanRefused(
            f"cohort.rate {cohort.rate:g} with cohort.sampling {cohort.sampling}: nobody is drawn at that rate, so it may "
            "not be counted; set cohort.sampling: poisson, or remove cohort.rate"
        )


def _refuse_delta(privacy: PrivacyConfig, clients: int) -> None:
    if privacy.delta >= 1 / clients:
        raise PlanRefused(
            f"privacy.delta {privacy.delta:g} with {clients} clients: δ must stay below 1/{clients}, "
            f"or publishing one client whole would count as private; set privacy.delta below {1 / clients:.2g}"
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
    if config.local.algorithm == "scaffold":
        raise PlanRefused(
            "privacy.mode central with local.algorithm scaffold: control variates are made of single updates and "
            "would reach other clients without noise; set local.algorithm: sgd"
        )
    if config.cohort.max_suspicion < 1:
        raise PlanRefused(
            f"privacy.mode central with cohort.max_suspicion {config.cohort.max_suspicion:g}: who is asked would depend "
            "on what clients sent, which no accountant here covers; set cohort.max_suspicion: 1"
        )
