"""Runs side by side: one row a run, from the work directory's records or from MLflow, the same numbers.

A row shows the newest round that was judged and whose model was kept, and sums what was spent
over all rounds.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from fedcore.config import EvaluateConfig
from fedcore.convergence import course
from fedcore.errors import BadInput, CorruptState, UnknownName
from fedcore.local.metrics import LOWER_IS_BETTER
from fedcore.tracking.points import points
from fedcore.types import Json, RoundRecord

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_OUTCOMES = {"cohort", "replied", "dropped", "refused", "unusual", "excluded"}
_COUNTS = _OUTCOMES | {"bytes_up", "bytes_down", "rolled_back"}
_NOT_METRICS = _COUNTS | {"update_norm", "epsilon", "delta", "virtual_s"}
_PREFIXES = ("client.", "seconds.", "asynchrony.")
_RULES = ("patience", "min_delta", "metric")


class Target(NamedTuple):
    """A metric and the value that a run shall reach: at most that where lower is better, else at least."""

    metric: str
    value: float

    @classmethod
    def of(cls, text: str) -> Self:
        """From ``METRIC=VALUE``. Raises `BadInput`."""
        metric, _, value = text.partition("=")
        try:
            return cls(metric.strip(), float(value))
        except ValueError:
            raise BadInput(f"target {text!r} is not METRIC=VALUE; write for example accuracy=0.9") from None

    def met(self, metrics: Mapping[str, float]) -> bool:
        """Whether `metrics` reach it."""
        found = metrics.get(self.metric)
        if found is None:
            return False
        return found <= self.value if self.metric in LOWER_IS_BETTER else found >= self.value


@dataclass(frozen=True)
class Row:
    """One run: `rounds` done, metrics of its final model, ε and δ spent, totals over all rounds.

    With early stopping the metrics are of the best round. `best_round` (from 1) was the best by the run's
    ``evaluate.metric``, `improving` says whether it was the last that was judged; None where none was.
    `guarantee` is its privacy in words, None where the run left none. `virtual_s` is how long it took on
    the virtual clock, None on the real one. Of a target, `reached_round` (from 1) is the first round
    that was kept and reached it, `reached_virtual_s` the virtual time then; None where none did.
    """

    run: str
    rounds: int
    metrics: Mapping[str, float]
    epsilon: float | None
    delta: float | None
    bytes_up: int
    bytes_down: int
    dropped: int
    refused: int
    rolled_back: int
    virtual_s: float | None
    guarantee: str | None = None
    best_round: int | None = None
    improving: bool | None = None
    reached_round: int | None = None
    reached_virtual_s: float | None = None

    def as_json(self) -> dict[str, Json]:
        """A JSON object with the fields' names."""
        return asdict(self)


Points = Mapping[int, Mapping[str, float]]  # round -> name -> value, as `points` names them


def compare(workdir: Path, runs: Sequence[str] = (), target: Target | None = None) -> list[Row]:
    """A row for each of `runs` (all of `workdir`, if none is named), in the order asked for.

    Raises `UnknownName` for a run that is not there, `CorruptState` for records that cannot be
    read, `BadInput` where there is nothing to compare.
    """
    folder = workdir / "runs"
    known = sorted(p.parent.name for p in folder.glob("*/records.jsonl"))
    if not known:
        raise BadInput(f"no runs in {folder}; run one with 'fedcore simulate' or name another --workdir")
    for run in runs:
        if run not in known:
            raise UnknownName("run", run, known)
    return [
        summarise(
            run,
            _read(folder / run / "records.jsonl"),
            _words(folder / run / "guarantee.txt"),
            _settings(folder / run / "plan.json"),
            target,
        )
        for run in runs or known
    ]


def compare_tracked(
    uri: str, experiment: str, runs: Sequence[str] = (), target: Target | None = None
) -> list[Row]:
    """The same rows from MLflow at `uri`; a run is named by its fedcore name or its MLflow id.

    Raises `UnknownName` for one that is not there, `BadInput` for a name that several runs have,
    `ServiceError` or `StorageError` if MLflow cannot be read.
    """
    from fedcore.tracking.mlflow import answers, connect, pick  # MLflow is heavy: only who asks for it pays

    client = connect(uri)
    with answers(uri):
        chosen = pick(client, experiment, runs)
        return [
            summarise(
                run.data.tags["fed.run"],
                _history(client, run),
                run.data.tags.get("fed.guarantee"),
                _rules({key: run.data.params.get(f"evaluate.{key}") for key in _RULES}),
                target,
            )
            for run in chosen
        ]


def summarise(
    run: str,
    rounds: Points,
    guarantee: str | None = None,
    rules: EvaluateConfig | None = None,
    target: Target | None = None,
) -> Row:
    """The row of one run. Without any round that was judged and kept, its metrics are empty."""
    rules = rules or EvaluateConfig()
    judged = {number: _metrics(values) for number, values in rounds.items() if not values.get("rolled_back")}
    newest = rounds[max(rounds)] if rounds else {}
    progress = course(rounds, frozenset(rounds) - frozenset(judged), rules)
    shown = {progress.round: judged[progress.round]} if progress and rules.patience else judged
    return Row(
        run=run,
        rounds=len(rounds),
        metrics=max(((n, metrics) for n, metrics in shown.items() if metrics), default=(0, {}))[1],
        epsilon=newest.get("epsilon"),
        delta=newest.get("delta"),
        **{name: round(_total(rounds, name)) for name in ("bytes_up", "bytes_down", "dropped", "refused")},
        rolled_back=round(_total(rounds, "rolled_back")),
        virtual_s=newest.get("virtual_s"),
        guarantee=guarantee,
        **_reached(rounds, judged, target),
        best_round=progress.round + 1 if progress else None,
        improving=progress.improving if progress else None,
    )


def _reached(rounds: Points, judged: Points, target: Target | None) -> dict[str, Any]:
    """When a round that was kept first reached the target."""
    first = min((number for number in judged if target and target.met(judged[number])), default=None)
    if first is None:
        return {}
    return {"reached_round": first + 1, "reached_virtual_s": rounds[first].get("virtual_s")}


def _metrics(values: Mapping[str, float]) -> dict[str, float]:
    return {k: values[k] for k in sorted(values) if k not in _NOT_METRICS and not k.startswith(_PREFIXES)}


def _total(rounds: Points, name: str) -> float:
    return sum(values.get(name, 0.0) for values in rounds.values())


def _settings(path: Path) -> EvaluateConfig:
    """How a run was judged; the defaults where its plan does not say, as old ones do not."""
    try:
        found: Mapping[str, Json] = json.loads(path.read_text(encoding="utf-8"))["settings"]["evaluate"]
    except FileNotFoundError:
        return EvaluateConfig()
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CorruptState(f"{path} is not the plan of a run ({error}); run the training again") from None
    return _rules({key: found.get(key) for key in _RULES})


def _rules(found: Mapping[str, Json]) -> EvaluateConfig:
    """The rules of early stopping from values or their text."""
    return EvaluateConfig(**{key: value for key, value in found.items() if value is not None})


def _words(path: Path) -> str | None:
    """The text of a file that old runs do not have."""
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CorruptState(f"{path} cannot be read ({error}); run the training again") from None


def _read(path: Path) -> Points:
    """Points of each record of a run, one canonical JSON a line."""
    rounds = {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            record = RoundRecord(**json.loads(line))
            rounds[record.round] = points(record)
    except (OSError, ValueError, TypeError) as error:
        raise CorruptState(f"{path} does not hold round records ({error}); run the training again") from None
    return rounds


def _history(client: "MlflowClient", run: "Run") -> Points:
    """Points of each round as MLflow holds them."""
    rounds: dict[int, dict[str, float]] = {}
    for name in run.data.metrics:
        if name.startswith(_PREFIXES):
            continue
        for metric in client.get_metric_history(run.info.run_id, name):
            rounds.setdefault(metric.step, {})[name] = metric.value
    return rounds
