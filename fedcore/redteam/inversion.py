"""Gradient inversion: the pictures a client trained on, rebuilt from the update it sent, under each defence.

The update is made by the client's own training on real rows; a defence is what it goes through
before an attacker sees it. Attacks: the first layer's ratio (`analytic.py`), DLG and inverting
gradients (`gradient_matching.py`). The attacker is the server: it knows model, encoding, local
settings and number of rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np

from fedcore.adapters.model import Training
from fedcore.config import Config
from fedcore.data.features import Features
from fedcore.data.federated import SiteData, load_site
from fedcore.errors import BadInput, MissingExtra
from fedcore.local.sgd import algorithm
from fedcore.redteam.analytic import distinct, first_layer_rows, labels
from fedcore.redteam.likeness import matched, mse, overlap, psnr, ssim
from fedcore.redteam.trial import Arena, open_arena
from fedcore.redteam.variants import noise
from fedcore.rng import generator
from fedcore.transforms.chain import chain, identity
from fedcore.transforms.clip import clip
from fedcore.transforms.top_k import top_k
from fedcore.types import Floats, Transform, Vector, canonical_json

ATTACKS = ("first layer", "DLG", "inverting")
NOISES = (0.001, 0.01, 0.1, 1.0)  # multipliers: the noise's deviation over the clip
SHARES = (0.1, 0.01)  # of coordinates that top-k keeps


class Defence(NamedTuple):
    """What an update goes through, and over how many clients' updates the attacker sees the mean alone."""

    through: Transform
    clients: int = 1


@dataclass(frozen=True)
class Scene:
    """One client's pictures (rows, height, width) in [0, 1] and labels, and the updates: its own comes first.

    `everyone` holds the labels of all the clients whose updates are there.
    """

    arena: Arena
    start: Vector
    pictures: Floats
    truth: tuple[int, ...]
    updates: tuple[Vector, ...]
    everyone: tuple[tuple[int, ...], ...]
    center: Floats
    unit: Floats
    steps: int
    blind: float  # mean squared error of guessing the mean picture of other clients


@dataclass(frozen=True)
class Rebuilt:
    """One attack under one defence: means over victims, and the first victim's pictures, matched.

    `closer` is the attacker's objective at the end over that at the start, None where it has none.
    """

    defence: str
    attack: str
    mse: float
    psnr: float
    ssim: float
    labels: float
    closer: float | None
    pictures: Floats


def defences(clients: int, limit: float) -> dict[str, Defence]:
    """The defences by name; updates are clipped to `limit`, a secure sum is over `clients`."""
    found = {"none": Defence(identity), "clipping": Defence(clip(limit))}
    found |= {f"clipping, noise {z:g}": Defence(chain(clip(limit), noise(z * limit))) for z in NOISES}
    found |= {f"top-k, {100 * share:g} %": Defence(top_k(share)) for share in SHARES}
    return found | {f"secure sum of {clients}": Defence(identity, clients)}


def open_scenes(config: Config, workdir: Path, rows: int, steps: int, victims: int) -> list[Scene]:
    """The first `victims` clients of `config`, each having trained `steps` times on `rows` of its pictures.

    The model is at its start. Raises `BadInput` for data without classes or without pictures.
    """
    if config.model.factory or config.model.framework != "torch":
        raise BadInput(
            "gradient inversion needs a built-in model in torch, "
            f"got {config.model.factory or config.model.framework}; set model.framework=torch without model.factory"
        )
    arena = open_arena(config, workdir, 0)
    shape = Features.from_json(canonical_json(arena.features)).input_shape
    if arena.schema.task == "regression" or len(arena.schema.classes) < 3 or len(shape) != 2:
        raise BadInput(
            f"gradient inversion draws pictures of three classes or more, {arena.schema.dataset} has rows of shape "
            f"{shape} and {len(arena.schema.classes)} classes; use --preset digits"
        )
    least = min(arena.rows.values())
    for name, got, most in (("batch", rows, least), ("victims", victims, len(arena.rows))):
        if not 1 <= got <= most:
            raise BadInput(f"{name} must be between 1 and {most} here, got {got}")
    if steps < 1:
        raise BadInput(f"steps must be 1 or more, got {steps}")
    start = arena.model.init(generator(config.seed, "init"))
    taken = {client: _taken(arena, client, rows) for client in arena.fleet.clients}
    updates = {client: _update(arena, start, data, steps) for client, data in taken.items()}
    return [
        _scene(arena, start, taken, updates, client, steps) for client in list(arena.fleet.clients)[:victims]
    ]


def invert(
    scenes: Sequence[Scene],
    through: Mapping[str, Defence],
    attacks: Sequence[str] = ATTACKS,
    effort: float = 1.0,
    done: Callable[[str], None] = lambda name: None,
) -> list[Rebuilt]:
    """Each attack under each defence on all `scenes`; `effort` scales how long the searches go on."""
    found = []
    for name, chosen in through.items():
        for attack in attacks:
            tries = [_attacked(scene, name, chosen, attack, effort) for scene in scenes]
            found.append(_together(name, attack, scenes, tries))
            done(f"{name}: {attack}")
    return found


class _Try(NamedTuple):
    pictures: Floats
    labels: float
    closer: float | None


def _attacked(scene: Scene, name: str, chosen: Defence, attack: str, effort: float) -> _Try:
    seed, lr = scene.arena.config.seed, scene.arena.config.local.lr
    sent = []
    for number, update in enumerate(scene.updates[: chosen.clients]):
        rng = generator(seed, "defence", name, number)
        sent.append(chosen.through.apply(update, chosen.through.init(), rng)[0].astype(np.float64))
    seen = np.mean(sent, axis=0).astype(np.float32)
    truth = [label for client in scene.everyone[: chosen.clients] for label in client]
    known = tuple(labels(seen, scene.arena.model.layout, len(truth), lr * scene.steps))
    closer, guesses = None, None
    if attack == "first layer":
        rows, strength = first_layer_rows(seen, scene.arena.model.layout)
        shaped = rows * scene.unit.ravel() + scene.center.ravel()
        guesses = distinct(shaped, strength, len(truth)).reshape(-1, *scene.center.shape)
    else:
        guesses, closer = _searched(
            scene, seen, known, attack, effort, generator(seed, "guess", attack, name)
        )
    return _Try(matched(scene.pictures, guesses), overlap(truth, known), closer)


def _searched(
    scene: Scene, seen: Vector, known: tuple[int, ...], attack: str, effort: float, rng: np.random.Generator
) -> tuple[Floats, float]:
    try:
        from fedcore.redteam.gradient_matching import Sight, dlg, inverting
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "torch") from None
    model, lr = scene.arena.model, scene.arena.config.local.lr
    sight = Sight(model, scene.start, seen, lr, scene.steps, scene.center, scene.unit, known)  # type: ignore[arg-type]
    search, long = (dlg, 30) if attack == "DLG" else (inverting, 400)
    recovered = search(sight, rng, max(1, round(long * effort)))
    return recovered.pictures, recovered.after / max(recovered.before, 1e-30)


def _together(name: str, attack: str, scenes: Sequence[Scene], tries: Sequence[_Try]) -> Rebuilt:
    pairs = [
        (original, guess)
        for scene, tried in zip(scenes, tries, strict=True)
        for original, guess in zip(scene.pictures, tried.pictures, strict=True)
    ]
    closer = [tried.closer for tried in tries if tried.closer is not None]
    return Rebuilt(
        defence=name,
        attack=attack,
        mse=fmean(mse(*pair) for pair in pairs),
        psnr=fmean(psnr(mse(*pair)) for pair in pairs),
        ssim=fmean(ssim(*pair) for pair in pairs),
        labels=fmean(tried.labels for tried in tries),
        closer=fmean(closer) if closer else None,
        pictures=tries[0].pictures,
    )


def _taken(arena: Arena, client: str, rows: int) -> SiteData:
    """`rows` of the client's training rows, drawn from the seed."""
    features, config = Features.from_json(canonical_json(arena.features)), arena.config
    data = load_site(
        arena.sites / client, arena.schema, features, config.seed, client, config.data.test_fraction
    )
    chosen = generator(config.seed, "victim", client).permutation(len(data.y_train))[:rows]
    return replace(data, x_train=data.x_train[chosen], y_train=data.y_train[chosen])


def _update(arena: Arena, start: Vector, data: SiteData, steps: int) -> Vector:
    """What the client sends after `steps` of gradient descent over all its rows at once."""
    settings = Training(arena.config.local.lr, 0.0, 0.0, steps, len(data.y_train))
    rng = generator(arena.config.seed, "batches")
    return algorithm("sgd")(arena.model, start, data, settings, rng)[0]


def _scene(
    arena: Arena,
    start: Vector,
    taken: Mapping[str, SiteData],
    updates: Mapping[str, Vector],
    victim: str,
    steps: int,
) -> Scene:
    scale = Features.from_json(canonical_json(arena.features)).scales[0]
    shape = arena.model.spec.input_shape
    center, unit = (np.array(part, dtype=np.float64).reshape(shape) for part in (scale.center, scale.scale))
    order = [victim, *(client for client in taken if client != victim)]
    pictures = {client: taken[client].x_train.astype(np.float64) * unit + center for client in order}
    others = np.concatenate([pictures[client] for client in order[1:]] or [pictures[victim]])
    return Scene(
        arena=arena,
        start=start,
        pictures=pictures[victim],
        truth=_classes(taken[victim]),
        updates=tuple(updates[client] for client in order),
        everyone=tuple(_classes(taken[client]) for client in order),
        center=center,
        unit=unit,
        steps=steps,
        blind=fmean(mse(picture, others.mean(axis=0)) for picture in pictures[victim]),
    )


def _classes(data: SiteData) -> tuple[int, ...]:
    return tuple(int(label) for label in data.y_train)
