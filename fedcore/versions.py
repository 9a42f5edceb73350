"""What a round does differently where the server does not wait for a cohort: a round is then one version of the model.

Pure functions of the state, the plan and the journal, called by the steps of `round.py`; the state machine
is `fedcore.asynchrony`. A simulated client trains as soon as it is handed a model, so each version asks
its beginners at once; the reply stays in that version's journal until the virtual clock says that it has
arrived. So nothing waits in memory, and a version combines replies of versions before it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType

import numpy as np

from fedcore.asynchrony import (
    Asynchrony,
    Course,
    Takes,
    course_from,
    course_tree,
    effective_rate,
    played,
    weight,
)
from fedcore.clock import Timing
from fedcore.config import Config
from fedcore.errors import CorruptState, PlanRefused, TooFewClients
from fedcore.rules import Aggregation
from fedcore.state import Plan, RoundJournal, State
from fedcore.types import Arrays, Json, Reply, Vector, Weights

NOTHING: Arrays = MappingProxyType({})
_REMEMBERING = (
    "scaffold",
    "feddyn",
)  # local algorithms whose server part follows each client from round to round


def rules(
    config: Config, clients: int, combined: Aggregation, timing: Timing | None, parameters: int
) -> Asynchrony | None:
    """The rules that ``asynchrony`` asks for over so many clients; None where it is off.

    `parameters` is the model's size. Raises `PlanRefused` for a composition that cannot keep what it
    promises, `TooFewClients` where a buffer could never be full.
    """
    wanted, cohort = config.asynchrony, config.cohort
    if wanted.mode == "off":
        return None
    size = 1 if wanted.mode == "fedasync" else wanted.buffer
    _refuse_unproven(config, combined, size)
    _refuse_clock(config)
    _refuse_starving(config, clients, size)
    assert timing is not None, "refused on the real clock"
    most = cohort.size if cohort.sampling == "uniform" else clients
    return Asynchrony(
        mode=wanted.mode,
        size=size,
        at_once=wanted.concurrency or most,
        weight=weight(wanted),
        max_staleness=wanted.max_staleness,
        alpha=wanted.alpha,
        normalise=wanted.normalise,
        participations=wanted.participations,
        window=wanted.window,
        takes=_takes(timing, 4 * parameters),
        patience=cohort.deadline_s,
    )


def opened(
    state: State, rules: Asynchrony, clients: Sequence[str], chance: np.random.Generator
) -> dict[str, Json]:
    """Facts of one version: who of `clients` begins, and whose update makes it, as the virtual clock has it.

    ``cohort`` are all whose answer came or was given up in this version, ``began`` those who train from
    its model, ``handed`` what each counted client was handed, ``late`` refused updates with the reason.
    """
    found = played(state.course, rules, clients, chance, state.model_sha256)
    return {
        "cohort": sorted({*found.counted, *found.refused, *found.lost}),
        "began": list(found.began),
        "handed": {client: asdict(handed) for client, handed in found.counted.items()},
        "late": dict(found.refused),
        "course": course_tree(found.course),
    }


def initial_model(state: State, plan: Plan) -> Arrays:
    """The model that no release holds, kept by the version that begins with it where FedAsync needs it later."""
    mixes = plan.asynchrony is not None and plan.asynchrony.mode == "fedasync"
    return {"model": state.model} if mixes and state.round == 0 else NOTHING


def asked(selected: Mapping[str, Json]) -> Sequence[str]:
    """Who trains from this round's model."""
    found: Sequence[str] = selected.get("began", selected["cohort"])
    return found


def answers(journal: RoundJournal, selected: Mapping[str, Json]) -> Mapping[str, Reply]:
    """The replies that a round combines, by client: its own, or those of the versions in which they began."""
    if "handed" not in selected:
        return journal.replies()
    found = {c: journal.at(handed["version"]).reply(c) for c, handed in selected["handed"].items()}
    return {client: reply for client, reply in found.items() if reply is not None}


def belonging(selected: Mapping[str, Json], number: int, digest: str) -> Callable[[str], tuple[int, str]]:
    """The round and the model's digest that a client's reply must name: `number` and `digest` where all begin together."""
    if "handed" not in selected:
        return lambda client: (number, digest)
    handed = selected["handed"]
    return lambda client: (handed[client]["version"], handed[client]["model_sha256"])


def refused_late(selected: Mapping[str, Json]) -> dict[str, str]:
    """Updates that came and do not count, with the reason; not of clients that another update of counts."""
    return {c: why for c, why in selected.get("late", {}).items() if c not in selected["handed"]}


def weighed(
    state: State,
    rules: Asynchrony,
    journal: RoundJournal,
    handed: Mapping[str, Json],
    updates: Mapping[str, Vector],
    weights: Weights,
) -> tuple[list[Vector], Weights]:
    """Updates and weights (n,) of a version's clients, in their order, less the staler each is.

    FedBuff (Nguyen et al. 2022, arXiv:2106.06639, algorithm 1): s(τ) Δ, whose mean is over the buffer, or with
    `normalise` ``weights`` the mean weighted by s(τ). FedAsync (Xie et al. 2019, arXiv:1903.03934,
    algorithm 1): α s(τ) (x_k - x), which mixes the client's model x_k into the current one x.
    """
    aged = staleness_weights(state.round, rules, handed, list(updates))
    rows = list(updates.values())
    if rules.mode == "fedasync":
        rows = [
            np.float32(rules.alpha * s)
            * (update + (handed_model(journal, handed[client]["version"]) - state.model))
            for s, (client, update) in zip(aged, updates.items(), strict=True)
        ]
        return rows, weights
    if rules.normalise == "weights":
        return rows, weights * aged
    return [np.float32(s) * row for s, row in zip(aged, rows, strict=True)], weights


def handed_model(journal: RoundJournal, version: int) -> Vector:
    """The model (d,) of a version, read back from the release that made it. Raises `CorruptState` if it is gone."""
    before = journal.at(version - 1).kept("record") if version else None
    made = before.facts["model_round"] if before else -1
    kept = journal.at(made).kept("release") if made >= 0 else journal.at(0).kept("select")
    if kept is None or "model" not in kept.arrays or (version and before is None):
        raise CorruptState(
            f"the model of version {version} is not in the journal; restore the journal from a copy"
        )
    model: Vector = kept.arrays["model"]
    return model


def staleness_weights(
    number: int, rules: Asynchrony, handed: Mapping[str, Json], clients: Sequence[str]
) -> Weights:
    """s(τ) of each of `clients`, (n,), for version `number`."""
    return np.array(
        [rules.weight(number - handed[client]["version"]) for client in clients], dtype=np.float64
    )


def carried(selected: Mapping[str, Json]) -> dict[str, Json]:
    """What a round's record keeps for the next version."""
    return {"course": selected["course"]} if "course" in selected else {}


def next_course(selected: Mapping[str, Json]) -> Course:
    """Where asynchronous training stands after the version; the beginning where there is none."""
    return course_from(selected["course"]) if "course" in selected else Course()


def told(number: int, rules: Asynchrony | None, selected: Mapping[str, Json]) -> dict[str, float] | None:
    """What a record says of a version; None without asynchrony.

    ``staleness_mean`` and ``staleness_max`` in versions over what counted; ``late``: updates refused;
    ``training``: clients at work when the version was made; ``rate``: see `effective_rate`.
    """
    if rules is None:
        return None
    handed = selected["handed"]
    ages = [number - given["version"] for given in handed.values()]
    rate = effective_rate(rules, staleness_weights(number, rules, handed, list(handed)))
    return {
        "staleness_mean": float(np.mean(ages)),
        "staleness_max": float(max(ages)),
        "late": float(len(selected["late"])),
        "training": float(len(selected["course"]["training"])),
        "rate": rate,
    }


def _takes(timing: Timing, model_bytes: int) -> Takes:
    """How long a client needs for a task, from its start on: until its device may begin, and then at work."""
    devices = timing.devices

    def takes(client: str, task: int, now: float) -> float | None:
        if devices.drops(client, task):
            return None
        waits = devices.start(client, now) - now
        return waits + devices.duration(client, task, timing.trained(client), model_bytes)

    return takes


def _refuse_unproven(config: Config, combined: Aggregation, size: int) -> None:
    """Raise `PlanRefused` for what assumes that all updates of a round begin at one model."""
    wanted, privacy = config.asynchrony, config.privacy
    if privacy.mode == "central":
        raise PlanRefused(
            f"privacy.mode central with asynchrony.mode {wanted.mode}: a buffer is filled by whoever arrives first, so "
            "without one client every later buffer holds others, and nothing here accounts for that; "
            "set privacy.mode: local or record, or asynchrony.mode: off"
        )
    if config.local.algorithm in _REMEMBERING:
        raise PlanRefused(
            f"local.algorithm {config.local.algorithm} with asynchrony.mode {wanted.mode}: its server derives what it "
            "remembers of a client from an update to the current model, and these begin at older ones; "
            "set local.algorithm: sgd"
        )
    if config.personal.algorithm != "none":
        raise PlanRefused(
            f"personal.algorithm {config.personal.algorithm} with asynchrony.mode {wanted.mode}: what a client keeps of its "
            "own is made for the model of its last round, and here that may not have counted; "
            "set personal.algorithm: none or asynchrony.mode: off"
        )
    if wanted.normalise == "weights" and not (combined.sums and wanted.mode == "fedbuff"):
        raise PlanRefused(
            f"asynchrony.normalise weights with asynchrony.mode {wanted.mode} and combine.rule {config.combine.rule}: "
            "staleness would change nothing, as only FedBuff's plain mean reads weights; set asynchrony.normalise: buffer"
        )
    if size < combined.least:
        raise PlanRefused(
            f"asynchrony.mode {wanted.mode} makes a version of {size} updates, and combine.rule {config.combine.rule} "
            f"with combine.f {config.combine.f} needs {combined.least}; raise asynchrony.buffer or lower combine.f"
        )


def _refuse_clock(config: Config) -> None:
    """Raise `PlanRefused` where it is not known who arrives when, or who begins is decided elsewhere."""
    mode, cohort = config.asynchrony.mode, config.cohort
    if config.time.mode != "virtual" or config.time.battery:
        battery = " and time.battery" if config.time.battery else ""
        raise PlanRefused(
            f"asynchrony.mode {mode} with time.mode {config.time.mode}{battery}: who arrives when is computed from "
            "time.classes on the virtual clock, where batteries are not followed; set time.mode: virtual and no "
            "time.battery"
        )
    if cohort.sampling not in ("all", "uniform") or cohort.over_select > 1:
        raise PlanRefused(
            f"asynchrony.mode {mode} with cohort.sampling {cohort.sampling} and cohort.over_select {cohort.over_select:g}: "
            "clients begin one by one as others arrive, drawn evenly; set cohort.sampling: all or uniform, and "
            "cohort.over_select: 1"
        )
    if cohort.sampling == "uniform" and config.asynchrony.concurrency is not None:
        raise PlanRefused(
            f"asynchrony.concurrency {config.asynchrony.concurrency} with cohort.sampling uniform: cohort.size "
            f"{cohort.size} says already how many train at once; remove one of them"
        )


def _refuse_starving(config: Config, clients: int, size: int) -> None:
    """Raise where a buffer could never be full, or is smaller than a round may be."""
    wanted = config.asynchrony
    if size < config.cohort.min_clients:
        raise PlanRefused(
            f"asynchrony.mode {wanted.mode} makes a version of {size} updates and cohort.min_clients is "
            f"{config.cohort.min_clients}; set cohort.min_clients: {size} if so few may move the model"
        )
    if clients < size:
        raise TooFewClients(size, clients, "asynchrony.buffer")
    cap = wanted.participations
    if cap is not None and clients * cap < size * (wanted.window - 1 + cap):
        needed = -(-size * (wanted.window - 1 + cap) // cap)
        raise TooFewClients(
            needed,
            clients,
            f"asynchrony.buffer {size} with asynchrony.participations {cap} in asynchrony.window {wanted.window}",
        )
