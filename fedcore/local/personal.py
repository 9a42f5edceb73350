"""Personal algorithms by name, and what is refused because it would not hold.

What a client keeps between rounds lies with the client alone (`kept.py`); only the update leaves it.
"""

from collections.abc import Mapping
from typing import NamedTuple

from fedcore.config import Config
from fedcore.errors import PlanRefused
from fedcore.local import apfl, ditto, heads, maml
from fedcore.local.work import Personalise, Train, Trained, Work, adapted
from fedcore.types import Layout


class Personal(NamedTuple):
    """One algorithm: what a client does in a round, and which model is its own afterwards."""

    train: Train
    own: Personalise


def plain(work: Work) -> Trained:
    """Local training and nothing beside it."""
    return Trained(*work.base(work.model, work.start, work.data, work.settings, work.rng), {})


PERSONAL: Mapping[str, Personal] = {
    "none": Personal(plain, adapted),
    "ditto": Personal(ditto.ditto, ditto.own_model),
    "mr_mtl": Personal(ditto.mr_mtl, ditto.own_model),
    "apfl": Personal(apfl.apfl, apfl.mixed_model),
    "fedper": Personal(heads.fedper, heads.joined),
    "fedrep": Personal(heads.fedrep, heads.joined),
    "per_fedavg": Personal(maml.per_fedavg, adapted),
    "reptile": Personal(maml.reptile, adapted),
}
HEADS = frozenset({"fedper", "fedrep"})
_BY_DP_SGD = frozenset({"none", "ditto", "mr_mtl"})  # what may be sent where records are private
_ADAPTS = frozenset({"per_fedavg", "reptile"})


def measured(config: Config) -> bool:
    """Whether clients have a model of their own to measure."""
    return config.personal.algorithm != "none" or config.personal.finetune_steps > 0


def judged_by(config: Config) -> str:
    """The loss by which a round is judged: that of own models, where the model of all is not one to use as it is."""
    return "personal_loss" if config.personal.algorithm in HEADS | _ADAPTS else "loss"


def refuse_personal(config: Config, layout: Layout | None) -> None:
    """Raise `PlanRefused` for a personal algorithm in surroundings in which it would not be itself.

    `layout` is the model's, None while it is not known.
    """
    name = config.personal.algorithm
    if name not in ("none", "ditto") and config.local.algorithm != "sgd":
        raise PlanRefused(
            f"personal.algorithm {name} with local.algorithm {config.local.algorithm}: {name} takes local steps of its "
            "own, which nothing corrects; set local.algorithm: sgd, or personal.algorithm: ditto"
        )
    _refuse_steps(config)
    _refuse_private(config)
    if name in HEADS and layout is not None and config.personal.head >= heads.layers(layout):
        raise PlanRefused(
            f"personal.head {config.personal.head} of a model with {heads.layers(layout)} layers: nothing would be left "
            "to learn together; set a smaller personal.head, or a deeper model"
        )


def refuse_own(config: Config, what: str) -> None:
    """Raise `PlanRefused` for clients with models of their own, which `what` does not train."""
    name, steps = config.personal.algorithm, config.personal.finetune_steps
    if measured(config):
        raise PlanRefused(
            f"personal.algorithm {name} with personal.finetune_steps {steps}: {what} trains one model for all; "
            "set personal.algorithm: none and personal.finetune_steps: 0"
        )


def _refuse_steps(config: Config) -> None:
    name, steps = config.personal.algorithm, config.personal.finetune_steps
    if name in _ADAPTS and not steps:
        raise PlanRefused(
            f"personal.algorithm {name} with personal.finetune_steps 0: its model is made to be adapted, and nobody would; "
            "set personal.finetune_steps: 1 or more"
        )
    if steps and name not in _ADAPTS and name != "none":
        raise PlanRefused(
            f"personal.finetune_steps {steps} with personal.algorithm {name}: its clients have models of their own, which "
            "are not fine-tuned; remove personal.finetune_steps"
        )


def _refuse_private(config: Config) -> None:
    name, mode = config.personal.algorithm, config.privacy.mode
    if name in HEADS and mode != "none":
        raise PlanRefused(
            f"personal.algorithm {name} with privacy.mode {mode}: noise would fall on the head, which nobody sends, and "
            "the model of all would forget the one it began with; set personal.algorithm: ditto"
        )
    if mode == "record" and name not in _BY_DP_SGD:
        raise PlanRefused(
            f"personal.algorithm {name} with privacy.mode record: its update is made by steps without noise, which the "
            "accountant does not cover; set personal.algorithm: ditto or mr_mtl, whose updates are DP-SGD's alone"
        )
    if mode == "record" and name == "mr_mtl" and config.personal.epochs not in (None, config.local.epochs):
        raise PlanRefused(
            f"personal.epochs {config.personal.epochs} with privacy.mode record: mr_mtl sends its own model, and the "
            f"accountant counts local.epochs {config.local.epochs} of it; remove personal.epochs"
        )
