"""READ FIRST. One round of federated learning: a fold over seven steps, each a function below.

    select → ask → admit → combine → release → judge → record

A step takes what the round knows so far and returns an `Outcome`: small JSON facts and arrays.
The journal keeps each outcome under (run, round, step) before the next step begins, so a round
that is killed goes on where it was, and ends in the same bytes. Airflow runs the same fold, one
step a task (`until`). What each name in the plan means is decided in `plan.py`; what a client
does is in `local/`; clients are reached through the `Fleet`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore import private, timing, versions
from fedcore.admission import noted, refusal, uncalled
from fedcore.clock import Schedule
from fedcore.config.evaluate import is_due
from fedcore.errors import Diverged, TooFewClients
from fedcore.history import History
from fedcore.local.population import Seen
from fedcore.local.shares import NOISE as NOISE_OF_METRICS
from fedcore.one_thread import one_thread
from fedcore.rng import generator
from fedcore.rules.blocks import stacked
from fedcore.selection import Turn
from fedcore.state import Ledger, Outcome, Plan, RoundJournal, State
from fedcore.suspicion import coordinated, evidence, remembered, trusted
from fedcore.transforms.clip import norm
from fedcore.types import Arrays, Fleet, Json, Reply, RoundRecord, Task, Transform, Vector

# How their states are named among a release's arrays; `HISTORY` is among a record's.
OPTIMIZER, RULE, CONTROL, NOISE = "optimizer/", "rule/", "control/", "noise/"
HISTORY = "history/"
JUDGED = "judged/"  # before a client's name: its reply to an evaluation, in the journal


@dataclass(frozen=True)
class Known:
    """What a round knows so far; every step reads it and adds one outcome."""

    state: State
    plan: Plan
    fleet: Fleet
    journal: RoundJournal
    ledger: Ledger | None
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)

    def facts(self, step: str) -> Mapping[str, Json]:
        """Facts of an earlier step."""
        return self.outcomes[step].facts

    def arrays(self, step: str) -> Arrays:
        """Arrays of an earlier step."""
        return self.outcomes[step].arrays

    @cached_property
    def after(self) -> State:
        """The state for the next round, once the model is judged."""
        return next_state(self)


def run_round(
    state: State, plan: Plan, fleet: Fleet, journal: RoundJournal, ledger: Ledger | None = None
) -> tuple[RoundRecord, State]:
    """The record of round `state.round`, and the state for the next."""
    known = run_steps(state, plan, fleet, journal, ledger)
    return round_record(known), known.after


@one_thread()
def run_steps(
    state: State,
    plan: Plan,
    fleet: Fleet,
    journal: RoundJournal,
    ledger: Ledger | None = None,
    until: str = "record",
) -> Known:
    """The fold itself, up to and with the step `until`."""
    known = Known(state, plan, fleet, journal, ledger)
    for name, step in STEPS.items():
        outcome = journal.once(name, lambda step=step, known=known: step(known))  # type: ignore[misc]
        known = replace(known, outcomes={**known.outcomes, name: outcome})
        if name == until:
            break
    return known


def select(known: Known) -> Outcome:
    """Draw the cohort with the server's randomness, and charge the ledger before anyone is asked."""
    state, plan = known.state, known.plan
    asked = trusted(plan.clients, state.suspicion, plan.max_suspicion, plan.needed(len(plan.clients)))
    chance = plan.chance(state.run, state.round)
    if plan.asynchrony:
        chosen = versions.opened(state, plan.asynchrony, asked, chance)
    else:
        chosen = {"cohort": list(plan.draw(asked, chance, Turn(state.round, state.now, state.history)))}
    spent = None
    if plan.charge and known.ledger:
        spent = known.ledger.reserve(state.run, state.round, plan.charge.event(state.round))
    left = frozenset(asked) if len(asked) < len(plan.clients) else None
    excluded = [client for client in plan.clients if left is not None and client not in left]
    facts = {**chosen, "epsilon": spent, "excluded": excluded}
    return Outcome(facts, versions.initial_model(state, plan))


def ask(known: Known) -> Outcome:
    """Let the cohort train from the current model; each reply is kept as it arrives.

    On the virtual clock only those train whose replies arrive in time. Where nobody waits, those who
    begin now train, and replies count that arrive now: see `fedcore.versions`.
    """
    state, plan, selected = known.state, known.plan, known.facts("select")
    cohort = versions.asked(selected)
    corrections = _corrections(known)
    at, small = private.limit(state, plan), timing.batch_sizes(plan, cohort)
    task = Task("train", state.run, state.round, state.model, plan.features, corrections, at, small)
    schedule = None if plan.asynchrony else timing.schedule(state, plan, cohort, corrections)
    in_time = schedule.counted if schedule else cohort
    missing = [client for client in in_time if client not in known.journal.replies()]
    ignored: dict[str, str] = {}
    for reply in known.fleet.ask(task, missing):
        ignored |= uncalled(reply, cohort, known.journal.replies())
        if reply.client not in ignored:
            known.journal.keep(reply)
    answered = {*versions.answers(known.journal, selected), *versions.refused_late(selected)}
    replied = sorted(answered & set(selected["cohort"]))
    needed, sent = timing.needed(plan, cohort), state.model.nbytes * (len(cohort) + len(corrections))
    sent *= schedule.attempts if schedule else 1
    facts = {"replied": replied, "needed": needed, "bytes_down": sent, "ignored": ignored}
    return Outcome(facts | ({"schedule": schedule.to_json()} if schedule else {}))


def admit(known: Known) -> Outcome:
    """Refuse unusable updates, each with its reason, and note unusual ones; the round goes on."""
    selected, replied = known.facts("select"), known.facts("ask")["replied"]
    replies, model, late = _replies(known), known.state.model, versions.refused_late(selected)
    belongs = versions.belonging(selected, known.state.round, known.state.model_sha256)
    bad = {c: why for c in replied if c not in late and (why := refusal(replies[c], *belongs(c), model))}
    refused = {**late, **bad}
    accepted = [client for client in replied if client not in refused]
    came = (replies[client].vector for client in replied if client not in late)
    size = model.nbytes * len(late) + sum(vector.nbytes for vector in came if vector is not None)
    unusual = {} if known.plan.noise else noted(replies, accepted)
    return Outcome({"accepted": accepted, "refused": refused, "bytes_up": size, "unusual": unusual})


def combine(known: Known) -> Outcome:
    """One vector out of many: the rule's, or for privacy the plain sum of clipped updates.

    Rows are in the order of client names, so arrival order changes nothing. Raises `TooFewClients`
    when the bound of rule or quorum no longer holds after dropouts, `Diverged` where training that
    left the finite numbers is why.
    """
    state, plan, accepted = known.state, known.plan, known.facts("admit")["accepted"]
    replies = _replies(known)
    sent, guard = [replies[client] for client in accepted], private.guard(state, plan)
    updates = [_guarded(reply, guard) for reply in sent]
    if plan.noise:
        return Outcome({"clients": len(updates)}, private.summed(state, plan, sent, updates))
    _require(known, len(updates))
    weights = np.array([plan.weights[client] for client in accepted], dtype=np.float64)
    if plan.asynchrony:
        given, handed = dict(zip(accepted, updates, strict=True)), known.facts("select")["handed"]
        updates, weights = versions.weighed(state, plan.asynchrony, known.journal, handed, given, weights)
    rng = generator(plan.seed, "combine", state.round)
    matrix = plan.control.scaled(stacked(updates), accepted)
    found = plan.aggregate(matrix, weights, state.rule, rng)
    reduced = {c: round(float(part), 6) for c, part in zip(accepted, found.kept, strict=True) if part < 1}
    groups = coordinated(matrix, generator(plan.seed, "groups", state.run, state.round))
    facts = {"clients": len(updates), "reduced": reduced, "notes": dict(found.notes)}
    facts["groups"] = [[accepted[row] for row in group] for group in groups]
    given = dict(zip(accepted, updates, strict=True))
    seen = Seen(state.round, _corrections(known), given, found.vector)
    update, control = plan.control.after(state.control, seen)
    return Outcome(facts, {"update": update, **prefixed(RULE, found.state), **prefixed(CONTROL, control)})


def release(known: Known) -> Outcome:
    """Add the noise, divide by the expected cohort, take the server's step.

    The outcome is written under a fixed name in one move; a resumed round adopts what lies there,
    so that noise is never drawn twice for one release.
    """
    state, plan, kept = known.state, known.plan, known.arrays("combine")
    if plan.noise:
        update, stream = private.noisy_mean(state, plan, plan.noise, kept["sum"])
    else:
        update, stream = kept["update"], {}
    model, optimizer = plan.optimizer.step(state.model, update, state.optimizer)
    remembered = {k: v for k, v in kept.items() if k.startswith((RULE, CONTROL))}
    finite = bool(np.isfinite(model).all())
    facts = {"update_norm": norm(update) if np.isfinite(update).all() else 0.0, "finite": finite}
    arrays = {"model": model, **prefixed(OPTIMIZER, optimizer), **remembered, **prefixed(NOISE, stream)}
    return Outcome({**facts, "clip": private.next_limit(state, plan, kept)}, arrays)


def judge(known: Known) -> Outcome:
    """Evaluate the new model at the clients; keep it, or roll back to the last good one.

    A model that is not finite, or whose loss is not, has no metrics, and the run ends with the one
    before. What noise alone may do to a loss rolls nothing back. Where clients may not report
    (`Plan.evaluate_every` 0) nobody is asked.
    """
    state, plan = known.state, known.plan
    metrics: dict[str, float] = {}
    spread: dict[str, float] = {}
    due = is_due(state.round + 1, plan.evaluate_every, plan.rounds)
    if known.facts("release")["finite"] and due:
        task = Task("evaluate", state.run, state.round, known.arrays("release")["model"], plan.features)
        judges = plan.judges(state.run, state.round) if plan.judges else plan.clients
        asked = _kept_as_they_come(known, task, judges) if plan.judged_once else known.fleet.ask(task, judges)
        metrics, spread = plan.summarize(asked, state.round)
    diverged = not (
        known.facts("release")["finite"] and np.isfinite([*metrics.values(), *spread.values()]).all()
    )
    if diverged:
        metrics, spread = {}, {}
    doubt = plan.doubt * metrics.get(NOISE_OF_METRICS, 0.0)
    limit = None if state.best_loss is None else plan.rollback_factor * (state.best_loss + doubt)
    worse = limit is not None and metrics.get(plan.judged_by, 0.0) - doubt > limit
    verdict = "rollback" if diverged or worse else "keep"
    return Outcome({"metrics": metrics, "client_metrics": spread, "verdict": verdict, "diverged": diverged})


def record(known: Known) -> Outcome:
    """Settle the charge and gather what every sink will see."""
    charge, number = known.plan.charge, known.state.round
    if charge and known.ledger:
        at = private.limit(known.state, known.plan)
        known.ledger.settle(known.state.run, number, charge.event(number), {} if at is None else {"clip": at})
    kept = known.after
    progress = asdict(kept.progress) if kept.progress else None
    facts = {"model_round": kept.model_round, "best_loss": kept.best_loss, "progress": progress}
    more = {"suspicion": dict(kept.suspicion), "clip": kept.clip, **versions.carried(known.facts("select"))}
    timed = {"now": kept.now} if known.plan.timing else {}
    return Outcome({**facts, **more, **timed}, prefixed(HISTORY, kept.history.arrays()))


STEPS: Mapping[str, Callable[[Known], Outcome]] = MappingProxyType(
    {step.__name__: step for step in (select, ask, admit, combine, release, judge, record)}
)


def next_state(known: Known) -> State:
    """The state after the round: the released model if it was kept, else the one before.

    The clipping norm and the noise's memory follow each release, kept or not: the norm is a release
    that is paid for and says how long updates are, and the noise of later rounds builds on this one's.
    """
    state, verdict, arrays = known.state, known.facts("judge"), known.arrays("release")
    schedule, kept = timing.read(known.facts("ask")), verdict["verdict"] == "keep"
    course = versions.next_course(known.facts("select"))
    moved = replace(
        state,
        round=state.round + 1,
        suspicion={} if known.plan.noise else _suspicion(known),
        clip=known.facts("release").get("clip"),
        noise=arrays_of(NOISE, arrays),
        now=schedule.ends if schedule else max(state.now, course.now),
        history=_history(known, schedule),
        progress=known.plan.follow(state.progress, state.round, verdict["metrics"], kept),
        course=course,
    )
    if not kept:
        return moved
    loss = verdict["metrics"].get(known.plan.judged_by)
    losses = [x for x in (state.best_loss, loss) if x is not None]
    return replace(
        moved,
        model=arrays["model"],
        optimizer=arrays_of(OPTIMIZER, arrays),
        rule=arrays_of(RULE, arrays),
        control=arrays_of(CONTROL, arrays),
        model_round=state.round,
        best_loss=min(losses) if losses else None,
    )


def arrays_of(part: str, arrays: Arrays) -> dict[str, NDArray[Any]]:
    """The arrays of a release that are the state of `part`: `OPTIMIZER`, `RULE`, `CONTROL` or `NOISE`."""
    return {name.removeprefix(part): array for name, array in arrays.items() if name.startswith(part)}


def prefixed(part: str, arrays: Arrays) -> dict[str, NDArray[Any]]:
    """The inverse of `arrays_of`."""
    return {part + name: array for name, array in arrays.items()}


def round_record(known: Known) -> RoundRecord:
    """The round as every sink sees it."""
    state, cohort = known.state, known.facts("select")["cohort"]
    replied, charge = known.facts("ask")["replied"], known.plan.charge
    return RoundRecord(
        run=state.run,
        round=state.round,
        cohort=tuple(cohort),
        replied=tuple(replied),
        dropped=tuple(c for c in cohort if c not in replied),
        refused=known.facts("admit")["refused"],
        metrics=known.facts("judge")["metrics"],
        client_metrics=known.facts("judge")["client_metrics"],
        epsilon=known.facts("select")["epsilon"],
        delta=charge.delta if charge else None,
        bytes_up=known.facts("admit")["bytes_up"],
        bytes_down=known.facts("ask")["bytes_down"],
        update_norm=known.facts("release")["update_norm"],
        verdict=known.facts("judge")["verdict"],
        model_sha256=known.after.model_sha256,
        reduced=known.facts("combine").get("reduced", {}),
        unusual={**known.facts("admit")["unusual"], **known.facts("ask")["ignored"]},
        groups=tuple(tuple(group) for group in known.facts("combine").get("groups", [])),
        suspicion=dict(known.after.suspicion),
        excluded=tuple(known.facts("select")["excluded"]),
        clip=private.limit(state, known.plan),
        virtual_s=known.after.now if known.plan.timing else None,
        asynchrony=versions.told(state.round, known.plan.asynchrony, known.facts("select")),
        seconds=dict(known.journal.seconds()),
    )


def kept_model(released: int) -> str:
    """In words, the model that the round `released` left (-1: the initial one)."""
    return f"the model of round {released + 1}" if released >= 0 else "the initial model"


def _replies(known: Known) -> Mapping[str, Reply]:
    """The replies that the round combines."""
    return versions.answers(known.journal, known.facts("select"))


def _kept_as_they_come(known: Known, task: Task, judges: Sequence[str]) -> Iterator[Reply]:
    """Replies to an evaluation that no client gives twice, as it adds noise of its own: each is kept before it counts."""
    journal = known.journal
    missing = [client for client in judges if journal.kept(JUDGED + client) is None]
    for reply in known.fleet.ask(task, missing):
        said = {"facts": dict(reply.facts), "error": reply.error}
        journal.once(JUDGED + reply.client, partial(Outcome, said))
    for client in judges:
        if (outcome := journal.kept(JUDGED + client)) is not None:
            yield Reply(client, outcome.facts["facts"], error=outcome.facts["error"])


def _corrections(known: Known) -> dict[str, Vector]:
    """What each of the cohort adds to its gradients, if the algorithm has such."""
    state, control = known.state, known.plan.control
    return control.corrections(state.control, state.model, known.facts("select")["cohort"])


def _history(known: Known, schedule: Schedule | None) -> History:
    """What is remembered of the clients asked so far, this round's included."""
    replies = known.journal.replies() if known.plan.remembers else {}
    told = [replies[client] for client in known.facts("admit")["accepted"] if client in replies]
    cohort = known.facts("select")["cohort"]
    return timing.next_history(known.state, known.plan, cohort, told, schedule)


def _suspicion(known: Known) -> dict[str, float]:
    """Each client's score after what the round showed of it."""
    admitted, combined = known.facts("admit"), known.facts("combine")
    kept = {client: combined["reduced"].get(client, 1.0) for client in admitted["accepted"]}
    grouped = [client for group in combined["groups"] for client in group]
    now = evidence(kept, [*admitted["unusual"], *grouped], list(admitted["refused"]))
    return remembered(known.state.suspicion, now)


def _guarded(reply: Reply, guard: Transform) -> Vector:
    """The update after what the server enforces itself."""
    assert reply.vector is not None, "admit lets no reply without an update through"
    update, _ = guard.apply(reply.vector, guard.init(), np.random.default_rng(0))
    return update


def _require(known: Known, got: int) -> None:
    """Raise for fewer updates than the round needs."""
    needed, replies, refused = known.facts("ask")["needed"], _replies(known), known.facts("admit")["refused"]
    if got >= needed:
        return
    lost = sum(c in replies and replies[c].facts.get("diverged") is True for c in refused)
    if got + lost >= needed:
        what = f"{lost} of {lost + got} clients of round {known.state.round + 1} have no finite update"
        raise Diverged(f"{what}; kept {kept_model(known.state.model_round)}")
    why = "".join(f", {len(refused)} refused such as {c} ({said})," for c, said in [*refused.items()][:1])
    raise TooFewClients(
        needed, got, f"a round's quorum (cohort.quorum, cohort.min_clients, combine.rule with combine.f){why}"
    )
