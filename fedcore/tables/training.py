"""One cell trained through the round itself, in memory, and judged as its table says."""

import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from fedcore.adapters.model import build_model, model_spec
from fedcore.config import Config, DataConfig, config_from, config_tree
from fedcore.data.described import described
from fedcore.data.prepare import Prepared, prepare
from fedcore.data.schema import Schema
from fedcore.errors import BadData, BadInput
from fedcore.local.metrics import LOWER_IS_BETTER
from fedcore.local.shares import refuse_noised
from fedcore.plan import build_plan
from fedcore.rng import generator
from fedcore.round import run_round
from fedcore.session import features_tree
from fedcore.simulation import Memory, SerialFleet, open_fleet
from fedcore.state import Plan, State
from fedcore.tables.halfway import Halfway, Standing
from fedcore.tables.table import Cell, Table, cell_config, overlaid
from fedcore.types import Fleet, Task


class Where(NamedTuple):
    """Where a cell's clients train: ``run.engine``, ``run.workers`` and ``run.device``; scores do not depend on it."""

    engine: str | None = None
    workers: int = 0
    device: str = "cpu"


HERE = Where()


@dataclass(frozen=True)
class Trained:
    """What a cell came to: the score of each judged round, the one that counts, and how long it took.

    `parts` are the scores of the clients that judged the last model, where the table asks for them.
    """

    scores: Mapping[int, float]
    score: float
    parts: Mapping[str, float]
    rounds: int
    seconds: float


def train(
    table: Table,
    cell: Cell,
    workdir: Path,
    where: Where = HERE,
    heard: Callable[[int], None] = lambda done: None,
    halfway: Halfway | None = None,
) -> Trained:
    """Train and judge `cell`; its data lie under `workdir`. `heard` is told how many rounds are done.

    With `halfway` it goes on from where an earlier call was interrupted, to the same scores. Raises
    `BadConfig` for an engine or a device that is not there, what `build_plan` and `run_round` raise,
    `BadData` for a client that cannot describe its rows, and `CorruptState` for a standing that cannot be read.
    """
    start, config = time.monotonic(), cell_config(table, cell)
    halfway = halfway or Halfway(workdir / "halfway" / secrets.token_hex(8), every=math.inf)
    config = config_from(overlaid(config_tree(config), {"run": where._asdict()}))
    metric = cell.row.metric or table.metric
    refuse_noised(config, "a table")
    prepared = _prepared(config, workdir)
    with ExitStack() as stack:
        keep = stack.enter_context(halfway.clients())
        fleet = open_fleet(config, prepared.sites, prepared.passing, keep)
        stack.callback(fleet.close)
        schema = Schema.load(prepared.sites)
        features, rows, left_out = described(fleet, "table", schema, config.data)
        for client, why in left_out.items():
            raise BadData(client, why, "mend its data")
        plan = build_plan(config, rows, schema, features_tree(features), "table")
        model = build_model(model_spec(config.model, schema, features))
        vector = model.init(generator(plan.seed, "init"))
        begin = State("table", 0, vector, plan.optimizer.init(vector), rule=plan.aggregate.initial(vector))
        state, known, before = halfway.last() or Standing(begin, {}, 0.0)
        scores, start = dict(known), start - before
        for number in range(state.round, config.run.rounds):
            record, state = run_round(state, plan, fleet, Memory())
            scores |= {number: record.metrics[metric]} if metric in record.metrics else {}
            halfway.reached(Standing(state, scores, time.monotonic() - start), keep)
            heard(number + 1)
        parts = _judged(table, cell, config, workdir, fleet, state, plan, metric)
    if table.over == "clients" and not parts:
        raise BadInput(f"no client's test rows give a {metric}; choose other data or another metric")
    if table.over == "clients":
        scores = {config.run.rounds - 1: sum(parts.values()) / len(parts)}
    best = min if metric.removeprefix("personal_") in LOWER_IS_BETTER else max
    score = best(scores.values()) if table.when == "best" else scores[max(scores)]
    return Trained(scores, score, parts, config.run.rounds, time.monotonic() - start)


def _prepared(config: Config, workdir: Path) -> Prepared:
    """The data of `config`; those of natural clients are the same for all seeds."""
    drawn = config.data.partition.scheme != "natural"
    return prepare(config if drawn else replace(config, seed=1), workdir)


def _judged(
    table: Table,
    cell: Cell,
    config: Config,
    workdir: Path,
    fleet: Fleet,
    state: State,
    plan: Plan,
    metric: str,
) -> dict[str, float]:
    """Each client's own score of the last model, where the table counts clients; empty else."""
    if table.over == "rows":
        return {}
    if cell.row.judged_on is not None:
        data: DataConfig = config_from({"data": dict(cell.row.judged_on)}).data
        elsewhere = replace(config, data=data)
        prepared = _prepared(elsewhere, workdir)
        judges = SerialFleet(prepared.sites, prepared.passing, elsewhere)
        return own_scores(judges, judges.clients, state, plan, metric)
    return own_scores(fleet, fleet.clients, state, plan, metric)


def own_scores(
    fleet: Fleet, clients: Sequence[str], state: State, plan: Plan, metric: str
) -> dict[str, float]:
    """The score of `state`'s model at each of `clients` that has test rows."""
    task = Task("evaluate", state.run, state.round, state.model, plan.features)
    found = {reply.client: plan.summarize([reply], state.round)[0] for reply in fleet.ask(task, clients)}
    return {client: metrics[metric] for client, metrics in sorted(found.items()) if metric in metrics}
