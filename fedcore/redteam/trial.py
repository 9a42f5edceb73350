"""One training under attack, through the round itself, in memory: how good the model was after each round.

An `Arena` is everything that does not depend on rule or attack (rows, clients, who lies), made once.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedcore.adapters.model import Model, build_model, model_spec
from fedcore.config import Config
from fedcore.data.described import described
from fedcore.data.features import Features
from fedcore.data.federated import load_site
from fedcore.data.prepare import prepare
from fedcore.data.schema import Schema
from fedcore.errors import BadInput, Diverged, TooFewClients
from fedcore.local.personal import refuse_own
from fedcore.local.shares import refuse_noised
from fedcore.plan import build_plan
from fedcore.redteam.attacks import Attack
from fedcore.redteam.data import backdoor, implanted
from fedcore.redteam.fleet import Combine, HostileFleet, PoisonedFleet, draw_hostile
from fedcore.rng import generator
from fedcore.round import Known, run_steps
from fedcore.simulation import Memory, SerialFleet
from fedcore.state import Plan, State
from fedcore.types import Fleet, Json, Task, Updates, Vector, canonical_json

_SCORES = ("accuracy", "r2")  # of these, the first that the task has
_LESS = 0.5  # a row with less than this part of a full one counts as removed


@dataclass(frozen=True)
class Arena:
    """Clients with their rows, the features they share, and who of them lies."""

    config: Config
    sites: Path
    schema: Schema
    features: Json
    rows: Mapping[str, int]
    fleet: Fleet
    hostile: tuple[str, ...]
    model: Model

    def poisoned(self, attack: Attack) -> Fleet | None:
        """The liars of an attack on data, trained on their changed rows; None for other attacks."""
        if attack.poison is None:
            return None
        return PoisonedFleet(self.sites, self.hostile, self.config, attack.poison)

    def implanted(self, attack: Attack, vector: Vector) -> float | None:
        """How far a backdoor works in the model `vector`; None for an attack that makes none."""
        if attack.poison is not backdoor:
            return None
        features, fraction = Features.from_json(canonical_json(self.features)), self.config.data.test_fraction
        honest = (client for client in self.fleet.clients if client not in self.hostile)
        seed, schema = self.config.seed, self.schema
        sites = (load_site(self.sites / name, schema, features, seed, name, fraction) for name in honest)
        return implanted(self.model, vector, sites)


@dataclass(frozen=True)
class Trial:
    """What a training under attack came to.

    `scores` is the accuracy (or R²) of the kept model after each round on the honest clients'
    held-out rows; `caught` and `wronged` are the shares of liars' and of honest rows, over all
    rounds, that were refused or weighed less than half. `implanted` is how far a backdoor works in
    the end, None for other attacks. `stopped` says why a round could not end.
    """

    scores: tuple[float, ...]
    caught: float
    wronged: float
    implanted: float | None
    stopped: str | None
    model: Vector
    seconds: float

    @property
    def score(self) -> float:
        """The last score."""
        return self.scores[-1]

    def rounds_to(self, score: float) -> int | None:
        """How many rounds until the model was that good; None if it never was."""
        return next((number for number, got in enumerate(self.scores[1:], 1) if got >= score), None)


def open_arena(config: Config, workdir: Path, liars: int) -> Arena:
    """The clients of `config`, `liars` of them hostile. Raises `BadInput` unless a majority is honest."""
    prepared = prepare(config, workdir)
    return arena_at(config, prepared.sites, prepared.passing, liars)


def arena_at(config: Config, sites: Path, clients: tuple[str, ...], liars: int) -> Arena:
    """The same over prepared folders of `sites`, whatever seed they were made with."""
    refuse_own(config, "a trial under attack")
    refuse_noised(config, "a trial under attack")
    fleet = SerialFleet(sites, clients, config)
    if not 0 <= 2 * liars < len(fleet.clients):
        raise BadInput(
            f"{liars} liars among {len(fleet.clients)} clients: no rule survives half of them; "
            "ask for fewer liars or more clients"
        )
    schema = Schema.load(sites)
    features, rows, _ = described(fleet, "trial", schema, config.data)
    tree = Features.to_json(features)
    model = build_model(model_spec(config.model, schema, features))
    hostile = draw_hostile(fleet.clients, liars, config.seed)
    return Arena(config, sites, schema, json.loads(tree), rows, fleet, hostile, model)


def run_trial(
    arena: Arena,
    config: Config,
    attack: Attack,
    through: Callable[[Fleet], Fleet] = lambda fleet: fleet,
    options: Mapping[str, float] | None = None,
) -> Trial:
    """Train `config` in `arena` while its liars follow `attack`.

    `config` may differ from the arena's in what the server does only; `through` is what updates go
    through before anyone sees them. Raises what `build_plan` raises.
    """
    start = time.monotonic()
    plan = build_plan(config, arena.rows, arena.schema, arena.features, "trial")
    fleet, poisoned = through(arena.fleet), arena.poisoned(attack)
    liars = None if poisoned is None else through(poisoned)
    watch = _Watch(arena.hostile)
    state = _first(plan, arena)
    scores, stopped = [_score(arena, plan, state)], None
    for _ in range(config.run.rounds):
        combine = _combine(plan, state)
        hostile = HostileFleet(fleet, arena.hostile, attack, combine, config.seed, liars, options or {})
        try:
            with np.errstate(all="ignore"):  # what an attack does to a model overflows: that is the point
                known = run_steps(state, plan, hostile, Memory())
        except (TooFewClients, Diverged) as error:
            stopped = str(error)
            break
        state = known.after
        watch.see(known)
        scores.append(_of(known.facts("judge")["metrics"], scores[-1]) if _kept(known) else scores[-1])
    scores += [scores[-1]] * (config.run.rounds + 1 - len(scores))
    return Trial(
        scores=tuple(scores),
        caught=watch.caught,
        wronged=watch.wronged,
        implanted=arena.implanted(attack, state.model),
        stopped=stopped,
        model=state.model,
        seconds=time.monotonic() - start,
    )


class _Watch:
    """Counts whose rows were removed."""

    def __init__(self, hostile: Sequence[str]) -> None:
        self._hostile = frozenset(hostile)
        self._seen, self._removed = [0, 0], [0, 0]  # honest, hostile

    def see(self, known: Known) -> None:
        """Count a round."""
        parts = known.facts("combine").get("reduced", {})
        refused = known.facts("admit")["refused"]
        for client in known.facts("ask")["replied"]:
            liar = client in self._hostile
            self._seen[liar] += 1
            self._removed[liar] += client in refused or parts.get(client, 1.0) < _LESS

    @property
    def caught(self) -> float:
        """Share of the liars' rows that were removed."""
        return self._removed[1] / max(1, self._seen[1])

    @property
    def wronged(self) -> float:
        """Share of honest rows that were removed."""
        return self._removed[0] / max(1, self._seen[0])


def _first(plan: Plan, arena: Arena) -> State:
    model = arena.model.init(generator(plan.seed, "init"))
    return State("trial", 0, model, plan.optimizer.init(model), rule=plan.aggregate.initial(model))


def _combine(plan: Plan, state: State) -> Combine:
    """What the server will make of rows in this round: the liars know it all."""

    def combine(clients: Sequence[str], rows: Updates) -> Vector:
        guarded = [plan.guard.apply(row, plan.guard.init(), np.random.default_rng(0))[0] for row in rows]
        weights = np.array([plan.weights[client] for client in clients], dtype=np.float64)
        rng = generator(plan.seed, "combine", state.round)
        return plan.aggregate(np.stack(guarded), weights, state.rule, rng).vector

    return combine


def _score(arena: Arena, plan: Plan, state: State) -> float:
    """The score of the initial model."""
    honest = [client for client in plan.clients if client not in arena.hostile]
    task = Task("evaluate", state.run, -1, state.model, plan.features)
    return _of(plan.summarize(list(arena.fleet.ask(task, honest)), -1)[0], 0.0)


def _of(metrics: Mapping[str, float], otherwise: float) -> float:
    return next((metrics[name] for name in _SCORES if name in metrics), otherwise)


def _kept(known: Known) -> bool:
    return bool(known.facts("judge")["verdict"] == "keep")
