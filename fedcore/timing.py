"""What a round on the virtual clock does differently: who answers in time, when it ends, what is remembered.

Pure functions of the state and the plan, called by the steps of `round.py`. How long devices take is
decided in `clock/`.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence

from fedcore.clock import Charge, Schedule
from fedcore.history import History
from fedcore.state import Plan, State
from fedcore.types import Json, Reply, Vector


def needed(plan: Plan, cohort: Sequence[str]) -> int:
    """Replies without which the round fails: a share of those that are waited for, not of those asked to spare."""
    return plan.needed(plan.timing.awaited(len(cohort)) if plan.timing else len(cohort))


def batch_sizes(plan: Plan, cohort: Sequence[str]) -> dict[str, int]:
    """Batch sizes of those of `cohort` that have too little memory for that of the settings."""
    return plan.timing.batch_sizes(cohort) if plan.timing else {}


def schedule(
    state: State, plan: Plan, cohort: Sequence[str], corrections: Mapping[str, Vector]
) -> Schedule | None:
    """The round of `cohort` on the virtual clock: each gets the model, and a correction where there are any.

    A round that too few answered is repeated with the same cohort, for a while.
    """
    if plan.timing is None:
        return None
    up = state.model.nbytes
    down = 2 * up if corrections else up
    batteries = {client: _battery(state, plan, client) for client in cohort}
    least = needed(plan, cohort)
    return plan.timing.schedule(state.now, state.round, cohort, down, up, batteries.get, least)


def read(facts: Mapping[str, Json]) -> Schedule | None:
    """The schedule among the facts of a round's step ``ask``; None on the real clock."""
    return Schedule.from_json(facts["schedule"]) if "schedule" in facts else None


def next_history(
    state: State, plan: Plan, cohort: Sequence[str], told: Sequence[Reply], passed: Schedule | None
) -> History:
    """What is remembered once `cohort` was asked and the replies `told` were accepted."""
    if not plan.remembers:
        return state.history
    rows: dict[str, dict[str, float]] = {}
    for client in cohort:
        known = state.history.of(_place(plan, client)) or {"asked": 0.0}
        rows[client] = {"asked": known["asked"] + 1, "last": float(state.round)}
    for reply in told:
        if (loss := _loss(reply)) is not None:
            rows[reply.client]["loss"] = loss
    for client, values in _timed(plan, passed).items():
        rows[client] |= values
    return state.history.after({_place(plan, client): values for client, values in rows.items()})


def _timed(plan: Plan, passed: Schedule | None) -> dict[str, dict[str, float]]:
    """Seconds each device took, the deadline where it gave no reply in time, and its battery as it was left."""
    if plan.timing is None or passed is None:
        return {}
    rows = {}
    for visit in passed.visits:
        seconds = visit.work.total if visit.fate == "counted" else plan.timing.deadline
        rows[visit.client] = {"seconds": seconds, "level": visit.level, "since": visit.until}
    return rows


def _battery(state: State, plan: Plan, client: str) -> Charge | None:
    known = state.history.of(_place(plan, client))
    return None if known is None or math.isnan(known["level"]) else (known["level"], known["since"])


def _place(plan: Plan, client: str) -> int:
    return bisect_left(plan.clients, client)


def _loss(reply: Reply) -> float | None:
    """The training loss that a reply tells of, if it is a number that a loss can be."""
    loss = reply.facts.get("loss")
    if not isinstance(loss, int | float) or not math.isfinite(loss) or loss < 0:
        return None
    return float(loss)
