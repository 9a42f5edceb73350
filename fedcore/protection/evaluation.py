"""How clients' metrics leave them under privacy: in the clear, not at all, or as noisy sums that are charged."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from math import sqrt

from fedcore.config import PrivacyConfig
from fedcore.config.evaluate import is_due
from fedcore.data.schema import Schema
from fedcore.errors import PlanRefused
from fedcore.local.shares import Shares, added_up, shares_of
from fedcore.privacy.events import Event, GaussianSum, Judged, LocalRelease, RecordSgd
from fedcore.privacy.planning import MOST_NOISE
from fedcore.protection.mechanisms import normal_of
from fedcore.protection.setting import Protection, Setting, secret
from fedcore.selection import Turn
from fedcore.state import Charge, Summary
from fedcore.transforms.noise import add_gaussian
from fedcore.types import Reply

_GAUSSIAN = ("gaussian", "tree", "banded")


def noised(setting: Setting, found: Protection) -> Protection:
    """`found` with evaluations that clients answer under noise, charged in the rounds in which one is due."""
    privacy, charge = setting.privacy, found.charge
    assert charge is not None, "a mode of privacy charges its rounds"
    if privacy.mechanism not in _GAUSSIAN:
        raise PlanRefused(
            f"privacy.evaluation noised with privacy.mechanism {privacy.mechanism}: metrics get Gaussian noise, which would "
            "weaken what that mechanism promises; set privacy.evaluation: off, or privacy.mechanism: gaussian"
        )
    own, steps = setting.config.personal.algorithm, setting.config.personal.finetune_steps
    if privacy.mode == "record" and (steps or own not in ("none", "mr_mtl")):
        raise PlanRefused(
            f"privacy.evaluation noised with privacy.mode record, personal.algorithm {own} and finetune_steps {steps}: a "
            "client's own model is made without noise, so one record may change what it makes of all others; set "
            "privacy.evaluation: off, or personal.algorithm: mr_mtl"
        )
    event = evaluation_event(privacy, setting.chosen.amplifies_at)
    every, rounds = setting.config.evaluate.every, setting.config.run.rounds

    def both(round_number: int) -> Event:
        trained = charge.event(round_number)
        return Judged(trained, event) if is_due(round_number + 1, every, rounds) else trained

    once = privacy.mode != "central"  # there a client adds the noise, and says nothing twice
    return replace(found, charge=Charge(both, charge.delta), judges=_judges(setting), judged_once=once)


def evaluation_event(privacy: PrivacyConfig, rate: float | None) -> Event:
    """What one noisy evaluation releases; `rate` is that of Poisson cohorts, None where everyone is asked."""
    if privacy.mode == "central":
        return GaussianSum(privacy.evaluation_noise, rate)
    if privacy.mode == "local":
        return LocalRelease(privacy.evaluation_noise)
    return RecordSgd(privacy.evaluation_noise, 1.0, 1)  # all records of a silo once: a step that takes each


def noisy_summary(setting: Setting, schema: Schema) -> Summary:
    """What the server makes of the replies to a noised evaluation.

    Raises `PlanRefused` where so few units answer that noise would drown them.
    """
    config, privacy = setting.config, setting.privacy
    shares = shares_of(config, schema)
    deviation = privacy.evaluation_noise * shares.norm
    _refuse_drowned(setting, shares)
    normal = normal_of(setting, "evaluation")

    def summed(replies: Iterable[Reply], round_number: int) -> tuple[dict[str, float], dict[str, float]]:
        total, parts = added_up(replies, shares)
        if privacy.mode == "central":
            return shares.metrics(add_gaussian(total, deviation, normal(round_number)), deviation), {}
        return shares.metrics(total, deviation * sqrt(parts)), {}  # each added noise of its own

    return summed


def _judges(setting: Setting) -> Callable[[str, int], Sequence[str]] | None:
    """Whom an evaluation asks: a secret Poisson draw of its own where rounds have one, else everyone."""
    if setting.privacy.mode != "central" or setting.chosen.amplifies_at is None:
        return None
    chance, clients = secret(setting.config, "judges"), tuple(sorted(setting.rows))

    def judges(run: str, round_number: int) -> Sequence[str]:
        return setting.chosen.draw(clients, chance(run, round_number), Turn(round_number))

    return judges


def _refuse_drowned(setting: Setting, shares: Shares) -> None:
    """Raise `PlanRefused` for clients so few that the noise on a share would exceed `MOST_NOISE`."""
    privacy, clients = setting.privacy, len(setting.rows)
    if shares.by_row:
        return  # how many rows there are to judge by is seen when they are
    noise = privacy.evaluation_noise * shares.norm
    asked = clients * (setting.chosen.amplifies_at or 1.0)
    if privacy.mode == "local":
        noise *= sqrt(clients)
    if noise / asked > MOST_NOISE:
        raise PlanRefused(
            f"privacy.evaluation noised over {clients} clients: noise of {noise / asked:.2g} on each share, such as an "
            f"accuracy, above {MOST_NOISE:g}; lower privacy.evaluation_noise, have more clients, or set "
            "privacy.evaluation: off"
        )
