"""Asynchronous training as a state machine: who trains from which version, and what a buffer may hold.

Pure functions of a `Course` (the state) and `Asynchrony` (the rules), the same for simulated and
for real clients; only who calls them when differs. The server alone writes down which version it
handed to whom, so an update's staleness is never read from the client. `played` is the whole course
of one version on a virtual clock.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np

from fedcore.config import AsynchronyConfig
from fedcore.errors import BadInput, TooFewClients
from fedcore.types import Floats, Json

Weight: TypeAlias = Callable[[int], float]  # staleness in versions -> weight from 0 to 1
Takes: TypeAlias = Callable[[str, int, float], float | None]  # client, task, start -> seconds; None: lost
_PATIENT = 1000  # clients lost for each place of a buffer before a simulation gives up


def polynomial(staleness: int, exponent: float) -> float:
    """(1 + τ)^-a. Xie et al. 2019, arXiv:1903.03934, section 5.2; with a = 1/2 FedBuff's, arXiv:2106.06639.

    >>> polynomial(3, 0.5)
    0.5
    """
    return float((1 + staleness) ** -exponent)


def hinge(staleness: int, start: int, slope: float) -> float:
    """1 up to τ = b, then 1 / (1 + a (τ - b)). Xie et al. 2019, arXiv:1903.03934, section 5.2.

    >>> hinge(4, 4, 10.0), hinge(5, 4, 1.0)
    (1.0, 0.5)
    """
    return 1.0 / (1.0 + slope * max(0, staleness - start))


@dataclass(frozen=True)
class Asynchrony:
    """The rules of asynchronous training; what each is, `AsynchronyConfig` says.

    `size` is how many different clients a buffer holds, `at_once` how many train at a time, `takes`
    how long a client needs on the virtual clock; the place of one that is lost is free after `patience` seconds.
    """

    mode: Literal["fedasync", "fedbuff"]
    size: int
    at_once: int
    weight: Weight
    max_staleness: int | None = None
    alpha: float = 1.0
    normalise: Literal["buffer", "weights"] = "buffer"
    participations: int | None = None
    window: int = 1
    takes: Takes = lambda client, version, start: 0.0
    patience: float = 600.0


@dataclass(frozen=True)
class Handed:
    """What the server wrote down when a client began: the version, the model's SHA-256, and the time.

    `due` is when the answer arrives on a virtual clock (None on a real one), unless it is `lost`.
    """

    version: int
    model_sha256: str
    since: float
    due: float | None = None
    lost: bool = False


@dataclass(frozen=True)
class Course:
    """Where asynchronous training stands: all of it is journaled, so a crash keeps it.

    `version` is the model's, `now` the time in seconds, `training` what each client at work was
    handed, `buffer` the same for those whose update counts for the next version, `lost` how often
    a client was given up since the last version, `past` who contributed to the versions before,
    the newest last.
    """

    version: int = 0
    now: float = 0.0
    training: Mapping[str, Handed] = field(default_factory=dict)
    buffer: Mapping[str, Handed] = field(default_factory=dict)
    lost: Mapping[str, int] = field(default_factory=dict)
    past: tuple[tuple[str, ...], ...] = ()


def held_back(course: Course, rules: Asynchrony, client: str) -> str | None:
    """Why `client` may not begin now; None if it may, given a free place."""
    if client in course.training:
        return f"it trains from version {course.training[client].version} already"
    if client in course.buffer:
        return "it contributed to this version; the next one is not made yet"
    return _over_cap(course, rules, client)


def began(course: Course, rules: Asynchrony, client: str, handed: Handed) -> Course:
    """The course once `client` was handed the current model. Raises `BadInput` if it may not begin."""
    why = held_back(course, rules, client)
    if why is None and len(course.training) >= rules.at_once:
        why = f"{rules.at_once} clients train at once already (asynchrony.concurrency)"
    if why is not None:
        raise BadInput(f"client {client} cannot begin at version {course.version}: {why}; let it ask again")
    return replace(course, training={**course.training, client: handed})


def arrived(course: Course, rules: Asynchrony, client: str) -> tuple[str | None, Course]:
    """Why the update of `client` does not count (None: it does), as the client is told; and the course after it.

    At most one update of a client counts for a version, whatever it sends.
    """
    handed = course.training.get(client)
    if handed is None:
        twice = client in course.buffer
        return (
            "a second update for one version, the first counts" if twice else "answered without being asked",
            course,
        )
    after = replace(course, training={c: h for c, h in course.training.items() if c != client})
    staleness = course.version - handed.version
    if rules.max_staleness is not None and staleness > rules.max_staleness:
        return (
            f"its model is {staleness} versions old, asynchrony.max_staleness is {rules.max_staleness}; "
            "start again from the current one"
        ), after
    if client in course.buffer:  # it began before it contributed: a real client may have been restarted
        return "a second update for one version, the first counts", after
    if why := _over_cap(course, rules, client):
        return why, after
    return None, replace(after, buffer={**course.buffer, client: handed})


def gone(course: Course, client: str) -> Course:
    """The course once the server gave up waiting for `client`."""
    return replace(
        course,
        training={c: h for c, h in course.training.items() if c != client},
        lost={**course.lost, client: course.lost.get(client, 0) + 1},
    )


def is_full(course: Course, rules: Asynchrony) -> bool:
    """Whether the buffer holds enough different clients for the next version."""
    return len(course.buffer) >= rules.size


def emptied(course: Course, rules: Asynchrony) -> Course:
    """The course once the next version was made of the buffer."""
    past = (*course.past, tuple(sorted(course.buffer)))[-(rules.window - 1) :] if rules.window > 1 else ()
    past = past if rules.participations is not None else ()
    return replace(course, version=course.version + 1, buffer={}, lost={}, past=past)


@dataclass(frozen=True)
class Played:
    """One version on the virtual clock: who trains from its model, in order, whose update counts.

    `counted` says what each was handed, `refused` are updates that came and do not count, with the
    reason, `lost` says how often a client was given up.
    """

    began: tuple[str, ...]
    counted: Mapping[str, Handed]
    refused: Mapping[str, str]
    lost: Mapping[str, int]
    course: Course  # with the buffer emptied, at the next version


def played(
    course: Course,
    rules: Asynchrony,
    clients: Sequence[str],
    chance: np.random.Generator,
    model_sha256: str,
) -> Played:
    """What happens on the virtual clock until the buffer is full: who of `clients` begins, who arrives.

    Free places are given by `chance` to clients that may begin, evenly. Answers that arrive at the same
    instant are taken in the order of names, all before anyone begins again. Raises `TooFewClients` where
    nobody is left to fill the buffer, or nobody answers.
    """
    everyone: list[str] = []
    refused: dict[str, str] = {}
    while not is_full(course, rules):
        for client in _drawn(course, rules, clients, chance):
            course = began(course, rules, client, _handed(course, rules, client, model_sha256))
            if not course.training[client].lost:
                everyone.append(client)
        if not course.training or sum(course.lost.values()) > _PATIENT * rules.size:
            raise TooFewClients(rules.size, len(course.buffer), "a version (asynchrony.buffer)")
        now = min(_due(handed) for handed in course.training.values())
        course = replace(course, now=now)
        for client in sorted(c for c, handed in course.training.items() if _due(handed) == now):
            if is_full(course, rules):
                break  # it arrives at this instant too, but after the next version is made
            if course.training[client].lost:
                course = gone(course, client)
                continue
            why, course = arrived(course, rules, client)
            refused |= {client: why} if why else {}
    counted = course.buffer
    return Played(tuple(everyone), counted, refused, course.lost, emptied(course, rules))


def staleness(course: Course, counted: Mapping[str, Handed]) -> dict[str, int]:
    """How many versions old the model of each counted client is, by the version that is being made."""
    return {client: course.version - handed.version for client, handed in sorted(counted.items())}


def course_tree(course: Course) -> Json:
    """The course as JSON values, and back by `course_from`."""
    return asdict(course)


def course_from(tree: Json) -> Course:
    """The inverse of `course_tree`."""
    handed = {
        part: {client: Handed(**given) for client, given in tree[part].items()}
        for part in ("training", "buffer")
    }
    return Course(
        tree["version"], tree["now"], lost=tree["lost"], past=tuple(map(tuple, tree["past"])), **handed
    )


def weight(config: AsynchronyConfig) -> Weight:
    """What an update of a given staleness weighs under `config`."""
    return _WEIGHTS[config.weight](config)


def effective_rate(rules: Asynchrony, weights: Floats) -> float:
    """What share of a fresh step a version takes whose updates have these staleness weights (n,).

    FedAsync: α s; FedBuff: the mean weight, or 1 where updates are divided by the sum of weights.
    """
    if not len(weights):
        return 0.0
    mixed = rules.alpha if rules.mode == "fedasync" else 1.0
    return mixed * (float(weights.mean()) if rules.normalise == "buffer" else 1.0)


_WEIGHTS: Mapping[str, Callable[[AsynchronyConfig], Weight]] = MappingProxyType(
    {
        "constant": lambda config: lambda staleness: 1.0,
        "polynomial": lambda config: lambda staleness: polynomial(staleness, config.exponent),
        "hinge": lambda config: lambda staleness: hinge(staleness, config.hinge_start, config.hinge_slope),
    }
)


def _over_cap(course: Course, rules: Asynchrony, client: str) -> str | None:
    if rules.participations is None:
        return None
    if sum(client in version for version in course.past) < rules.participations:
        return None
    return (
        f"it contributed {rules.participations} times to the last {rules.window} versions "
        "(asynchrony.participations)"
    )


def _drawn(
    course: Course, rules: Asynchrony, clients: Sequence[str], chance: np.random.Generator
) -> tuple[str, ...]:
    """Who of `clients` begins now, sorted: as many as there are free places, without replacement."""
    ready = [client for client in sorted(clients) if held_back(course, rules, client) is None]
    places = rules.at_once - len(course.training)
    if len(ready) <= places:
        return tuple(ready)
    chosen = chance.choice(len(ready), size=places, replace=False) if places > 0 else ()
    return tuple(ready[i] for i in sorted(chosen))


def _handed(course: Course, rules: Asynchrony, client: str, model_sha256: str) -> Handed:
    task = course.version + (course.lost.get(client, 0) << 32)  # tried again, it may be lucky
    took = rules.takes(client, task, course.now)
    due = course.now + (rules.patience if took is None else took)
    return Handed(course.version, model_sha256, course.now, due, took is None)


def _due(handed: Handed) -> float:
    assert handed.due is not None, "on a virtual clock every answer has its time"
    return handed.due
