"""A run while a process works on it: its settings made into a plan, its fleet, its place in the journal."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from fedcore import timing
from fedcore.adapters.model import build_model, model_spec
from fedcore.adapters.trained import TrainedModel
from fedcore.clock import Schedule
from fedcore.config import Config, config_from
from fedcore.convergence import Progress, why_stop
from fedcore.data.features import Features
from fedcore.data.schema import Schema
from fedcore.errors import BadInput, CorruptState, Diverged
from fedcore.history import History
from fedcore.ledger import PrivacyLedger, ledger_of
from fedcore.plan import build_plan
from fedcore.privacy.planning import Affordable, affordable
from fedcore.rng import generator
from fedcore.round import (
    CONTROL,
    HISTORY,
    NOISE,
    OPTIMIZER,
    RULE,
    Known,
    arrays_of,
    kept_model,
    round_record,
    run_steps,
)
from fedcore.simulation import open_fleet
from fedcore.simulation.held import HeldJournal, lasting
from fedcore.state import Outcome, Plan, State
from fedcore.store import Journal, Store
from fedcore.types import Fleet, Json, RoundRecord, Vector, canonical_json
from fedcore.versions import next_course


@dataclass(frozen=True)
class Session:
    """An existing run, ready to be advanced. `body` is what the run is, `notes` what may change."""

    store: Store
    name: str
    config: Config
    schema: Schema
    plan: Plan
    fleet: Fleet
    ledger: PrivacyLedger | None
    body: Mapping[str, Json]
    notes: Mapping[str, Json]

    @property
    def rounds(self) -> int:
        """Number of complete rounds."""
        return len(self.store.rounds(self.name))

    def advance(self, round_number: int, until: str = "record") -> Known:
        """The round up to and with the step `until`, each step durable on its own: see `run_steps`."""
        journal = self.store.journal(self.name, round_number)
        return run_steps(self.state(round_number), self.plan, self.fleet, journal, self.ledger, until)

    def play(self, state: State) -> tuple[RoundRecord, State]:
        """A round of a simulation from `state`, played as a whole: its record, and the state for the next.

        What can be computed again is not kept before the round is complete.
        """
        round_number = state.round
        at = lasting(self.plan, self.config.privacy)
        journal: Journal | HeldJournal = self.store.journal(self.name, round_number)
        if at is not None:
            journal = HeldJournal(self.store, self.name, round_number, at)
        known = run_steps(state, self.plan, self.fleet, journal, self.ledger)
        return self._seen(round_record(known), round_number), known.after

    def state(self, round_number: int) -> State:
        """The state that round starts from. Raises `BadInput` unless the round before it is complete."""
        if round_number < 0:
            raise BadInput(f"round must be 0 or more, got {round_number}")
        if round_number == 0:
            model = self._initial_model()
            return State(
                self.name, 0, model, self.plan.optimizer.init(model), rule=self.plan.aggregate.initial(model)
            )
        recorded = self._outcome(round_number - 1, "record")
        before = recorded.facts
        latest = self._outcome(round_number - 1, "release").arrays
        carried = {
            "best_loss": before["best_loss"],
            "suspicion": before["suspicion"],
            "clip": before.get("clip"),
            "noise": arrays_of(NOISE, latest),
            "now": before.get("now", 0.0),
            "history": History.from_arrays(arrays_of(HISTORY, recorded.arrays)),
            "progress": self.progress(round_number),
            "course": next_course(before),
        }
        released = before["model_round"]
        if released < 0:
            return replace(self.state(0), round=round_number, **carried)
        arrays = latest if released == round_number - 1 else self._outcome(released, "release").arrays
        return State(
            self.name,
            round_number,
            arrays["model"],
            arrays_of(OPTIMIZER, arrays),
            released,
            rule=arrays_of(RULE, arrays),
            control=arrays_of(CONTROL, arrays),
            **carried,
        )

    def record(self, round_number: int) -> RoundRecord:
        """The record of a complete round, with the time it was committed."""
        return self._seen(round_record(self.advance(round_number)), round_number)

    def records(self) -> list[RoundRecord]:
        """The records of all complete rounds."""
        return [self.record(number) for number in range(self.rounds)]

    def schedules(self) -> list[Schedule]:
        """How the complete rounds passed on the virtual clock, in order; empty on the real clock."""
        found = (timing.read(self._outcome(number, "ask").facts) for number in range(self.rounds))
        return [schedule for schedule in found if schedule]

    def progress(self, rounds: int) -> Progress | None:
        """Which of `rounds` complete rounds was best; None if none was judged."""
        found = self._outcome(rounds - 1, "record").facts.get("progress") if rounds else None
        return Progress(**found) if found else None

    def stopped(self, rounds: int) -> str | None:
        """Why no further round follows after `rounds` of them; None if one does."""
        if rounds >= self.config.run.rounds:
            return "all rounds done"
        if self.is_diverged(rounds):
            return str(self.diverged(rounds))
        if early := why_stop(self.progress(rounds), self.config.evaluate):
            return early
        charge = self.plan.charge
        if (
            charge
            and self.ledger
            and rounds
            and not self.ledger.affords(self.name, rounds, charge.event(rounds))
        ):
            return f"privacy budget spent: one more round would exceed ε = {self.ledger.limit:g}"
        return None

    @cached_property
    def affordable(self) -> Affordable:
        """How many of the rounds `privacy.epsilon` pays for, were nobody else to spend it. A private run's alone."""
        charge, config = self.plan.charge, self.config
        assert charge is not None, "only private rounds cost anything"
        return affordable(charge.event, config.run.rounds, charge.delta, config.privacy.epsilon)

    def trained(self) -> TrainedModel:
        """The model after the last complete round."""
        features = Features.from_json(canonical_json(self.body["features"]))
        spec = model_spec(self.config.model, self.schema, features)
        return TrainedModel(spec, self._final_model(), features, self.schema)

    def best(self, records: Sequence[RoundRecord]) -> RoundRecord | None:
        """Of all `records` the one whose model is the run's because it was best; None without early stopping."""
        best = self._best_round()
        return None if best is None else records[best]

    def is_diverged(self, rounds: int) -> bool:
        """Whether the last of `rounds` complete rounds left the finite numbers."""
        return bool(rounds and self._outcome(rounds - 1, "judge").facts.get("diverged"))

    def diverged(self, rounds: int) -> Diverged:
        """The error that ends a run after a round whose model or loss is not finite."""
        kept = kept_model(self.state(rounds).model_round)
        what = f"the model of round {rounds} or its loss is not finite; kept {kept}"
        return Diverged(what, "lower local.lr or server.lr")

    def _seen(self, record: RoundRecord, round_number: int) -> RoundRecord:
        """The record with what this execution of the round was seen to take."""
        journal = self.store.journal(self.name, round_number)
        return replace(record, committed_at=journal.committed_at("record"), seconds=dict(journal.seconds()))

    def _best_round(self) -> int | None:
        """The round whose model is the run's because of early stopping; None without it."""
        progress = self.progress(self.rounds)
        return progress.round if progress and self.config.evaluate.patience else None

    def _final_model(self) -> Vector:
        best = self._best_round()
        if best is None:
            return self.state(self.rounds).model
        vector: Vector = self._outcome(best, "release").arrays["model"]
        return vector

    def _initial_model(self) -> Vector:
        features = Features.from_json(canonical_json(self.body["features"]))
        model = build_model(model_spec(self.config.model, self.schema, features))
        return model.init(generator(self.plan.seed, "init"))

    def _outcome(self, round_number: int, step: str) -> Outcome:
        kept = self.store.journal(self.name, round_number).kept(step)
        if kept is None:
            raise BadInput(
                f"round {round_number} of run {self.name} is not complete; run its step {step!r} first"
            )
        return kept


@contextmanager
def session(store: Store, run: str) -> Iterator[Session]:
    """The session of an existing run; its fleet is closed afterwards."""
    found = store.run(run)
    if found is None:
        known = ", ".join(store.runs()) or "none"
        raise BadInput(f"there is no run {run!r} in {store.workdir}; known runs: {known}")
    body, notes = found
    config, sites = config_from(notes["config"]), Path(notes["sites"])
    schema = Schema.load(sites)
    if schema_sha256(schema) != body["schema"]:
        raise CorruptState(
            f"run {run} was started on other data than {sites} holds now (its schema differs); "
            "put that data back, or choose another --run"
        )
    plan = build_plan(config, body["rows"], schema, body["features"], run)
    kept = store.workdir / "runs" / run / "clients"
    with closing(open_fleet(config, sites, plan.clients, kept)) as fleet:
        yield Session(store, run, config, schema, plan, fleet, ledger_of(store, config, body), body, notes)


@contextmanager
def held(workdir: Path, run: str) -> Iterator[Session]:
    """The session of an existing run in `workdir`, held for this process alone. Raises `RunBusy`."""
    with ExitStack() as stack:
        store = stack.enter_context(Store.at(workdir))
        if store.run(run) is not None:
            stack.enter_context(store.lock(run))
        yield stack.enter_context(session(store, run))


@contextmanager
def seen(workdir: Path, run: str) -> Iterator[Session]:
    """The session of an existing run, to read complete rounds while another process may work on it."""
    with Store.at(workdir) as store, session(store, run) as opened:
        yield opened


def schema_sha256(schema: Schema) -> str:
    """The digest by which a run knows its data's schema again."""
    return hashlib.sha256(schema.to_json().encode()).hexdigest()


def features_tree(features: Features) -> Json:
    """Features as JSON values, as a run and its tasks carry them."""
    return json.loads(features.to_json())
