"""Which model version is in use: a candidate passes its gates and becomes champion, and can be taken back.

Aliases say it (``candidate``, ``champion``, ``previous``), never stages. Every number a gate
looks at is a tag of the version, written when it is registered. The moves are ordered so that
a crash between any two is mended by running the same command again.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedcore.config import PromotionConfig
from fedcore.errors import BadInput
from fedcore.gates import check_gates
from fedcore.types import canonical_json

if TYPE_CHECKING:
    from mlflow import MlflowClient

_CANDIDATE, _CHAMPION, _PREVIOUS = "candidate", "champion", "previous"
_WITHDRAWN = "fed.rolled_back"


@dataclass(frozen=True)
class Version:
    """One version of a registered model: number, MLflow run, tags (metrics, ε, digests) and aliases."""

    name: str
    number: int
    run_id: str
    tags: Mapping[str, str]
    aliases: tuple[str, ...]

    @property
    def uri(self) -> str:
        """What ``mlflow.pyfunc.load_model`` takes."""
        return f"models:/{self.name}/{self.number}"

    @property
    def guarantee(self) -> str | None:
        """The run's privacy guarantee in words, None where it stated none."""
        return self.tags.get("fed.guarantee")

    @property
    def metrics(self) -> dict[str, float]:
        """The tags that are numbers: metrics, ``epsilon``, ``delta``, counts."""
        numbers = {}
        for key, text in self.tags.items():
            with suppress(ValueError):
                numbers[key] = float(text)
        return numbers


@dataclass(frozen=True)
class Promotion:
    """A champion, the champion before it, whether anything moved, and each gate with what it saw."""

    champion: Version
    previous: int | None
    moved: bool
    gates: Mapping[str, str]


def register(
    uri: str, config: PromotionConfig, mlflow_run: str, facts: Mapping[str, str] | None = None
) -> Version:
    """The version made from the model that `mlflow_run` logged, with alias ``candidate``.

    Its tags are the model's metrics, ε and δ, digest, the training's name, data digests and
    checks, and `facts`. The same model of the same run is registered once, however often asked.
    Raises `BadInput` if the run logged no model.
    """
    client = _client(uri)
    from fedcore.tracking.mlflow import answers

    with answers(uri):
        tags = _facts(client, mlflow_run) | dict(facts or {})
        _ensure_model(client, config.model)
        found = _registered(client, config.model, mlflow_run, tags["fed.model_sha256"])
        if found is None:
            model = client.get_logged_model(tags["fed.model_id"])
            made = client.create_model_version(
                config.model, model.artifact_location, mlflow_run, tags=tags, model_id=model.model_id
            )
            found = _version(client, config.model, made.version)
        _nominate(client, found)
        return _version(client, config.model, found.number)


def promote(uri: str, config: PromotionConfig, version: int | None = None) -> Promotion:
    """Make `version` (None: the candidate) champion if all gates pass; the old one becomes ``previous``.

    Nothing moves unless every gate passes: raises `GateRefused` naming gate, value and limit.
    Promoting the champion again changes nothing. Raises `BadInput` if there is no such version.
    """
    client = _client(uri)
    from fedcore.tracking.mlflow import answers

    with answers(uri):
        chosen = _chosen(client, config.model, version)
        old = _by_alias(client, config.model, _CHAMPION)
        moved = old is None or old.number != chosen.number
        gates = check_gates(config, chosen.metrics, old.metrics if old else None) if moved else {}
        if moved:
            _crown(client, chosen, old, gates)
        _drop_alias(client, chosen, _CANDIDATE)
        previous = _by_alias(client, config.model, _PREVIOUS)
        new = _version(client, config.model, chosen.number)
        return Promotion(new, previous.number if previous else None, moved, gates)


def rollback(uri: str, name: str) -> Version:
    """The champion before the present one, made champion again; the present one is marked as taken back.

    Raises `BadInput` if there is no version to go back to.
    """
    client = _client(uri)
    from fedcore.tracking.mlflow import answers

    with answers(uri):
        old, back = _by_alias(client, name, _CHAMPION), _by_alias(client, name, _PREVIOUS)
        if back is None:
            raise BadInput(f"model {name!r} has no previous version to go back to; promote another one")
        if old is not None and old.number != back.number:
            client.set_model_version_tag(name, str(old.number), _WITHDRAWN, "true")
            client.set_registered_model_alias(name, _CHAMPION, str(back.number))
        _drop_alias(client, back, _PREVIOUS)
        return _version(client, name, back.number)


def champion(uri: str, name: str) -> Version | None:
    """The version in use, None if none was promoted yet."""
    client = _client(uri)
    from fedcore.tracking.mlflow import answers

    with answers(uri):
        return _by_alias(client, name, _CHAMPION)


def find_run(uri: str, experiment: str, name: str) -> str:
    """MLflow id of the run of this name or id. Raises `UnknownName`, `BadInput` if several have it."""
    client = _client(uri)
    from fedcore.tracking.mlflow import answers, pick

    with answers(uri):
        return str(pick(client, experiment, [name])[0].info.run_id)


def fetch(uri: str, version: Version, folder: Path) -> Path:
    """The `TrainedModel` folder of `version`, downloaded below `folder`."""
    client = _client(uri)
    import mlflow.artifacts

    from fedcore.tracking.mlflow import answers
    from fedcore.tracking.mlflow.model import TRAINED

    folder.mkdir(parents=True, exist_ok=True)
    with answers(uri):
        source = client.get_model_version_download_uri(version.name, str(version.number))
        got = mlflow.artifacts.download_artifacts(
            artifact_uri=f"{source}/{TRAINED}", dst_path=str(folder), tracking_uri=uri
        )
        return Path(got)


def _client(uri: str) -> "MlflowClient":
    from fedcore.tracking.mlflow import connect  # MLflow is heavy: only who asks for the registry pays

    return connect(uri)


def _facts(client: "MlflowClient", mlflow_run: str) -> dict[str, str]:
    """Version tags read from the run and its logged model, so that they cannot differ from them."""
    run = client.get_run(mlflow_run)
    model_id = run.data.tags.get("fed.model_id")
    if model_id is None:
        raise BadInput(f"MLflow run {mlflow_run} has logged no model; finish the training, then register")
    model = client.get_logged_model(model_id)
    numbers = [metric for metric in model.metrics or [] if not metric.key.startswith("seconds.")]
    tags = {metric.key: repr(metric.value) for metric in numbers}
    if "epsilon" in run.data.metrics:  # a round rolled back later has spent its share too
        tags["epsilon"] = repr(run.data.metrics["epsilon"])
    tags |= {key: value for key, value in model.tags.items() if key.startswith("fed.")}
    digests = {i.dataset.name: i.dataset.digest for i in (run.inputs.dataset_inputs if run.inputs else [])}
    tags["data.digests"] = canonical_json(digests)[:5000]
    kept = ("fed.run_key", "fed.checks", "fed.guarantee", "git.commit", "dvc.rev", "fedcore.version")
    tags |= {key: run.data.tags[key] for key in kept if key in run.data.tags}
    return tags | {"fed.model_id": model_id}


def _ensure_model(client: "MlflowClient", name: str) -> None:
    if client.search_registered_models(f"name = '{name}'", max_results=1):
        return
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description="Made by fedcore; aliases say what is in use.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _registered(client: "MlflowClient", name: str, run_id: str, sha256: str) -> Version | None:
    """The newest version of this model of this run, None if it is not registered."""
    found = client.search_model_versions(f"name = '{name}' AND run_id = '{run_id}'")
    same = [int(v.version) for v in found if v.tags.get("fed.model_sha256") == sha256]
    return _version(client, name, max(same)) if same else None


def _nominate(client: "MlflowClient", version: Version) -> None:
    """Make `version` the candidate unless it was promoted, taken back, or a newer one is candidate."""
    now = _by_alias(client, version.name, _CANDIDATE)
    if version.aliases or _WITHDRAWN in version.tags or (now is not None and now.number > version.number):
        return
    if "fed.promoted" not in version.tags:
        client.set_registered_model_alias(version.name, _CANDIDATE, str(version.number))


def _crown(client: "MlflowClient", new: Version, old: Version | None, gates: Mapping[str, str]) -> None:
    """First ``previous``, then ``champion``: between the two, running again does both again."""
    for gate, saw in gates.items():
        client.set_model_version_tag(new.name, str(new.number), f"gate.{gate}", saw)
    client.set_model_version_tag(new.name, str(new.number), "fed.promoted", "true")
    if old is not None:
        client.set_registered_model_alias(new.name, _PREVIOUS, str(old.number))
    client.set_registered_model_alias(new.name, _CHAMPION, str(new.number))


def _chosen(client: "MlflowClient", name: str, number: int | None) -> Version:
    found = _by_alias(client, name, _CANDIDATE) if number is None else _find(client, name, number)
    if found is None:
        what = "candidate" if number is None else f"version {number}"
        raise BadInput(
            f"model {name!r} has no {what}; train and register one, or name another with --version"
        )
    return found


def _by_alias(client: "MlflowClient", name: str, alias: str) -> Version | None:
    return _known(client, lambda: client.get_model_version_by_alias(name, alias))


def _find(client: "MlflowClient", name: str, number: int) -> Version | None:
    return _known(client, lambda: client.get_model_version(name, str(number)))


def _known(client: "MlflowClient", ask: Callable[[], Any]) -> Version | None:
    """What `ask` finds, None where MLflow says that there is no such model, alias or version."""
    from mlflow.exceptions import MlflowException

    try:
        found = ask()
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    return _version(client, found.name, found.version)


def _version(client: "MlflowClient", name: str, number: int | str) -> Version:
    found = client.get_model_version(name, str(number))
    return Version(
        name, int(found.version), found.run_id or "", dict(found.tags), tuple(sorted(found.aliases))
    )


def _drop_alias(client: "MlflowClient", version: Version, alias: str) -> None:
    now = _by_alias(client, version.name, alias)
    if now is not None and now.number == version.number:
        client.delete_registered_model_alias(version.name, alias)
