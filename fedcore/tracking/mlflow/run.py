"""One training as one MLflow run: a step is a round, told in one batch with the round's own time.

MLflow ignores a point it already has (same name, value, time and step), so telling a round
twice changes nothing, and a resumed run is found by its key and goes on where it was.
"""

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mlflow import MlflowClient
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from fedcore.adapters.trained import TrainedModel
from fedcore.config import TrackingConfig
from fedcore.errors import BadInput, UnknownName
from fedcore.tracking.context import surroundings
from fedcore.tracking.mlflow.connect import address, answers, artifact_root, connect, shown
from fedcore.tracking.mlflow.model import log_trained
from fedcore.tracking.pages import run_page
from fedcore.tracking.plots import draw
from fedcore.tracking.points import flatten, participation, points
from fedcore.types import Json, RoundRecord

GUARANTEE = "fed.guarantee"  # the tag with the guarantee in words: a person may rewrite the note
_LONGEST_DIGEST = 36  # of a dataset, in MLflow's tables
_LONGEST_PARAM = 6000
_PARAMS_AT_ONCE = 100


@dataclass(frozen=True)
class MlflowRun:
    """A sink: call it with each `RoundRecord`."""

    client: MlflowClient
    uri: str
    run_id: str
    experiment_id: str

    def __call__(self, record: RoundRecord) -> None:
        """Log the round's numbers at step ``record.round``, all or none."""
        at = round(record.committed_at * 1000)
        metrics = [Metric(name, value, at, record.round) for name, value in points(record).items()]
        tags = [RunTag("fed.round", str(record.round)), RunTag("fed.verdict", record.verdict)]
        with answers(self.uri):
            self.client.log_batch(self.run_id, metrics, tags=tags)

    @property
    def url(self) -> str:
        """Where a person sees the run: a page of the server, or the command that shows the database."""
        page = run_page(self.experiment_id, self.run_id)
        if self.uri.startswith("http"):
            return f"{shown(self.uri).rstrip('/')}/{page}"
        return f"mlflow ui --backend-store-uri {shown(self.uri)}  ({page})"

    def describe(self, plan: Json, guarantee: str, checks: Mapping[str, Json] | None = None) -> None:
        """Log ``plan.json``, ``guarantee.txt`` and ``checks.json``; the guarantee is also the run's note and tag.

        `checks` is the summary of the data checks: site to an object with at least ``passed``; no rows.
        """
        with answers(self.uri):
            self.client.log_dict(self.run_id, plan, "plan.json")
            self.client.log_text(self.run_id, guarantee, "guarantee.txt")
            self.client.set_tag(self.run_id, "mlflow.note.content", guarantee)
            self.client.set_tag(self.run_id, GUARANTEE, guarantee)
            if checks is not None:
                passed = sum(bool(result["passed"]) for result in checks.values())
                self.client.log_dict(self.run_id, dict(checks), "checks.json")
                self.client.set_tag(self.run_id, "fed.checks", f"{passed} of {len(checks)} sites passed")

    def log_records(self, records: Sequence[RoundRecord]) -> None:
        """Log the pictures of the run so far and the table of who took part (``report/``)."""
        with tempfile.TemporaryDirectory() as folder, answers(self.uri):
            draw(records, Path(folder))
            (Path(folder) / "clients.csv").write_text(participation(records), encoding="utf-8")
            self.client.log_artifacts(self.run_id, folder, "report")

    def log_files(self, folder: Path, under: str | None = None) -> None:
        """Log every file of `folder`, below `under`."""
        with answers(self.uri):
            self.client.log_artifacts(self.run_id, str(folder), under)

    def log_model(self, trained: TrainedModel, record: RoundRecord, onnx: Path | None = None) -> str:
        """Id of the logged model; the same model is logged once.

        `record` is of the round it comes from (`points.last_kept`), `onnx` its export if there is one.
        """
        with answers(self.uri):
            model_id = log_trained(self.client, self.client.get_run(self.run_id), trained, record, onnx)
            self.client.set_tag(self.run_id, "fed.model_id", model_id)
            return model_id

    def finish(self, status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED") -> None:
        """Mark the run as ended; opening it again makes it run on."""
        with answers(self.uri):
            self.client.set_terminated(self.run_id, status)


def open_tracking(
    config: TrackingConfig,
    workdir: Path,
    run: str,
    config_tree: Mapping[str, Json],
    tags: Mapping[str, str],
    datasets: Sequence[tuple[str, str]],
    key: str | None = None,
) -> MlflowRun:
    """The MLflow run of training `run`, made or found again by its key, with parameters, tags and inputs.

    `key` names the training in the whole world (give the journal's id); by default it is the
    run's name and the work directory. `datasets` are pairs of site and keyed digest of its data
    version. Raises `ServiceError` or `StorageError` in seconds if MLflow cannot be reached.
    """
    uri = address(config, workdir)
    client = connect(uri)
    run_key = f"{run}@{key or hashlib.sha256(str(workdir.resolve()).encode()).hexdigest()[:16]}"
    with answers(uri):
        experiment = _experiment(client, config.experiment, artifact_root(uri, workdir))
        found = find_run(client, experiment, run_key)
        if found is None:
            named = {"fed.run": run, "fed.run_key": run_key, "mlflow.source.name": "fedcore"}
            found = client.create_run(experiment, tags={**surroundings(), **tags, **named}, run_name=run)
        elif found.info.status != "RUNNING":
            client.update_run(found.info.run_id, status="RUNNING")
        _log_params(client, found, flatten(config_tree))
        inputs = [_input(site, digest, tags) for site, digest in datasets]
        if inputs:
            client.log_inputs(found.info.run_id, inputs)
        return MlflowRun(client, uri, found.info.run_id, experiment)


def find_run(client: MlflowClient, experiment: str, run_key: str) -> Run | None:
    """The run with this key, None if there is none."""
    runs = client.search_runs([experiment], f"tags.`fed.run_key` = '{run_key}'", max_results=1)
    return runs[0] if runs else None


def pick(client: MlflowClient, experiment: str, names: Sequence[str] = ()) -> list[Run]:
    """Runs of `experiment` by fedcore name or MLflow id, in the order of `names`; without names all.

    Raises `UnknownName` for one that is not there, `BadInput` for a name that several have.
    """
    found = client.get_experiment_by_name(experiment)
    if found is None:
        raise UnknownName("experiment", experiment, [other.name for other in client.search_experiments()])
    every = client.search_runs([found.experiment_id], "tags.`fed.run` != ''")
    return [_named(every, name) for name in names] or list(every)


def _named(runs: Sequence[Run], name: str) -> Run:
    same = [run for run in runs if name in (run.info.run_id, run.data.tags["fed.run"])]
    if not same:
        raise UnknownName("run", name, {run.data.tags["fed.run"] for run in runs})
    if len(same) > 1:
        ids = ", ".join(run.info.run_id for run in same)
        raise BadInput(f"{len(same)} MLflow runs are named {name!r}; name one by its id: {ids}")
    return same[0]


def _experiment(client: MlflowClient, name: str, root: str | None) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=root))
        except MlflowException as error:  # another process was quicker
            found = client.get_experiment_by_name(name)
            if found is None:
                raise error
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _log_params(client: MlflowClient, run: Run, params: Mapping[str, str]) -> None:
    """Log what the run does not have yet: a parameter of MLflow never changes."""
    new = [Param(k, v[:_LONGEST_PARAM]) for k, v in params.items() if k not in run.data.params]
    for start in range(0, len(new), _PARAMS_AT_ONCE):
        client.log_batch(run.info.run_id, params=new[start : start + _PARAMS_AT_ONCE])


def _input(site: str, digest: str, tags: Mapping[str, str]) -> DatasetInput:
    """A site's data version as an MLflow input: a name and a keyed digest, nothing of the data."""
    origin = {"site": site} | {k: v for k, v in tags.items() if k.startswith(("dvc.", "data."))}
    source = CodeDatasetSource(origin)
    dataset = MetaDataset(source, name=site, digest=digest[:_LONGEST_DIGEST])  # type: ignore[abstract,unused-ignore]
    return DatasetInput(Dataset(**dataset.to_dict()), [InputTag("site", site)])
