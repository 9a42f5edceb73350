"""Membership inference against a federated model: can anyone tell which records a client trained on?

K federations are trained through the round itself on the same clients. Each has a seed of its
own, so each client keeps another half of its rows back: every record is in about half of the
models, by an independent fair draw. Each model is then attacked by what the others show
(`lira.py`), for each defence, which is nothing but overrides of the configuration.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedcore.config import Config
from fedcore.data.features import Features
from fedcore.data.federated import load_site, split
from fedcore.data.prepare import prepare
from fedcore.errors import BadInput, UnknownName
from fedcore.plan import build_plan
from fedcore.privacy.accountant import epsilon
from fedcore.redteam.attacks import HONEST
from fedcore.redteam.lira import ATTACKS, Power, area, balanced_accuracy, logit_confidence, power, roc
from fedcore.redteam.trial import Arena, arena_at, run_trial
from fedcore.rng import generator
from fedcore.types import Floats, Vector, canonical_json

RATES = (1e-2, 1e-3)  # false positive rates at which an attack is judged
LEAST = 8  # shadows: with fewer, most records lack a model with or without them
_NO_NOISE = 1e-9  # what stands for none where the configuration wants a noise multiplier above zero


class Defence(NamedTuple):
    """Overrides of the configuration, and in words what they promise a record."""

    overrides: tuple[str, ...]
    promise: str


def _central(noise: float) -> tuple[str, ...]:
    return (
        "privacy.mode=central",
        "privacy.clip=0.5",
        f"privacy.noise_multiplier={noise}",
        "privacy.noise=seeded",
        "privacy.max_noise_ratio=1e6",  # how well the model does is reported beside the attack
        "combine.weights=equal",
    )


_RECORD = (
    "privacy.mode=record",
    "privacy.unit=record",
    "privacy.record_rate=0.1",
    "privacy.clip=1.0",
    "privacy.noise_multiplier=1.0",
    "privacy.noise=seeded",
)

DEFENCES: Mapping[str, Defence] = {
    "none": Defence((), "nothing"),
    "clipping": Defence(_central(_NO_NOISE), "nothing: no noise hides what clipped updates say"),
    "central-0.1": Defence(_central(0.1), "the unit is the client; so little noise proves next to nothing"),
    "central-1": Defence(_central(1.0), "the unit is the client: a record is covered with all of its client"),
    "record-1": Defence(_RECORD, "the unit is the record: just what is attacked"),
}


@dataclass(frozen=True)
class Shadows:
    """Logit-scaled confidences `phi` (models, records), who trained on which record, and held-out accuracy."""

    phi: Floats
    member: NDArray[np.bool_]
    accuracy: float
    train_accuracy: float
    epsilon: float | None
    delta: float | None


@dataclass(frozen=True)
class Curve:
    """One attack on all models of a defence: its power at `RATES`, and the whole curve."""

    powers: tuple[Power, ...]
    balanced_accuracy: float
    auc: float
    fpr: Floats
    tpr: Floats
    left_out: int


@dataclass(frozen=True)
class Membership:
    """What came of one defence: its models, and each attack of `ATTACKS` on them."""

    defence: str
    promise: str
    shadows: Shadows
    curves: Mapping[str, Curve]


def defence(name: str) -> Defence:
    """The defence of that name. Raises `UnknownName`."""
    if name not in DEFENCES:
        raise UnknownName("defence", name, DEFENCES)
    return DEFENCES[name]


def train_shadows(
    config: Config, workdir: Path, count: int, trained: Callable[[], None] = lambda: None
) -> Shadows:
    """`count` federations of `config` over its clients, each with half of every client's rows as members.

    Raises `BadInput` for fewer than `LEAST` or for a regression, and what `build_plan` raises.
    """
    if count < LEAST:
        raise BadInput(
            f"membership inference needs at least {LEAST} shadow models, got {count}; ask for more"
        )
    config = replace(
        config,
        data=replace(config.data, test_fraction=0.5),
        evaluate=replace(config.evaluate, every=config.run.rounds),
    )
    prepared = prepare(config, workdir)
    found, spent = [], None
    for number in range(count):
        seed = int(generator(config.seed, "shadow", number).integers(2**31))
        arena = arena_at(replace(config, seed=seed), prepared.sites, prepared.passing, 0)
        if arena.schema.task == "regression":
            raise BadInput(
                f"{arena.schema.dataset} is a regression and LiRA compares confidences of classes; "
                "choose a classification, e.g. --preset digits"
            )
        spent = _spent(arena) if number == 0 else spent
        found.append(_asked(arena, run_trial(arena, arena.config, HONEST).model))
        trained()
    phi, member, right = (np.stack(parts) for parts in zip(*found, strict=True))
    accuracy, seen = float(right[~member].mean()), float(right[member].mean())
    return Shadows(phi, member, accuracy, seen, spent, config.privacy.delta if spent else None)


def infer(shadows: Shadows, shared: bool | None = None) -> dict[str, Curve]:
    """Each attack of `ATTACKS` on every model in turn, all trials together; `shared` as in `lira.online`."""
    return {
        name: _curve(attack(shadows.phi, shadows.member, shared), shadows.member)
        for name, attack in ATTACKS.items()
    }


def judge(
    configs: Mapping[str, Config],
    workdir: Path,
    count: int,
    shared: bool | None = None,
    trained: Callable[[str], None] = lambda name: None,
) -> list[Membership]:
    """Every defence by its name in `DEFENCES` and the configuration that it gives."""
    found = []
    for name, config in configs.items():
        shadows = train_shadows(config, workdir, count, lambda name=name: trained(name))  # type: ignore[misc]
        found.append(Membership(name, defence(name).promise, shadows, infer(shadows, shared)))
    return found


def _asked(arena: Arena, model: Vector) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
    """Of every record of every client, in one order: confidence, membership, whether it is classed rightly."""
    config, features = arena.config, Features.from_json(canonical_json(arena.features))
    fraction, parts = config.data.test_fraction, []
    if arena.schema.split:
        raise BadInput(
            f"{arena.schema.dataset} brings its own division into training and test rows, and shadow models need others; "
            "leave data.published_split out or choose another set"
        )
    for site in arena.fleet.clients:
        data = load_site(arena.sites / site, arena.schema, features, config.seed, site, fraction)
        train, test = split(len(data.y_train) + len(data.y_test), config.seed, site, fraction)
        order = np.argsort(np.concatenate([train, test]))
        x, y = np.concatenate([data.x_train, data.x_test]), np.concatenate([data.y_train, data.y_test])
        scores = arena.model.scores(model, x)
        said = scores.argmax(axis=1) if scores.ndim == 2 else scores > 0.5
        member = np.arange(len(y)) < len(train)
        parts.append((logit_confidence(scores, y)[order], member[order], (said == y)[order]))
    phi, member, right = (np.concatenate(column) for column in zip(*parts, strict=True))
    return phi, member, right


def _curve(scores: Floats, member: NDArray[np.bool_]) -> Curve:
    known = ~np.isnan(scores)
    inside, outside = scores[known & member], scores[known & ~member]
    false, true = roc(inside, outside)
    return Curve(
        powers=tuple(power(inside, outside, rate) for rate in RATES),
        balanced_accuracy=balanced_accuracy(inside, outside),
        auc=area(inside, outside),
        fpr=false,
        tpr=true,
        left_out=int((~known).sum()),
    )


def _spent(arena: Arena) -> float | None:
    """ε of one training at ``privacy.delta``; None where nothing is proved."""
    plan = build_plan(arena.config, arena.rows, arena.schema, arena.features, "trial")
    if plan.charge is None or arena.config.privacy.noise_multiplier <= _NO_NOISE:
        return None
    return epsilon([plan.charge.event(number) for number in range(plan.rounds)], plan.charge.delta)
