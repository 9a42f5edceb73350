"""What is trained: a model, the rows of all sites together, the settings, and which rows a step takes."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedcore.adapters.layers import batches
from fedcore.adapters.model import Model, ModelSpec, Training, build_model, model_spec
from fedcore.config import Config, config_tree
from fedcore.data.features import Features, agreed, merge
from fedcore.data.federated import SiteData, load_site, train_statistics
from fedcore.data.prepare import Prepared
from fedcore.data.schema import Schema
from fedcore.errors import BadInput
from fedcore.local.metrics import measure, summarize
from fedcore.parallel.schedule import chunks
from fedcore.rng import generator
from fedcore.types import Reply, Vector, canonical_json


@dataclass(frozen=True)
class Job:
    """One training on the union of all sites' rows, the same at every rank."""

    spec: ModelSpec
    model: Model
    features: Features
    schema: Schema
    data: SiteData
    settings: Training
    seed: int

    def start(self) -> Vector:
        """The first parameters (d,)."""
        return self.model.init(generator(self.seed, "init"))

    def steps(self, epoch: int) -> list[NDArray[np.intp]]:
        """The numbers of the rows of each step of an epoch, in order; the last step may have fewer."""
        return batches(len(self.data.y_train), self.settings.batch_size, self._epoch(epoch))

    def gradient(self, vector: Vector, rows: NDArray[np.intp]) -> tuple[float, Vector]:
        """Mean loss over `rows` and its gradient (d,); zeros for no rows."""
        if not len(rows):
            return 0.0, np.zeros_like(vector)
        return self.model.loss_and_gradient(vector, self.data.x_train[rows], self.data.y_train[rows])

    def judge(self, vector: Vector) -> Mapping[str, float]:
        """Metrics over the test rows."""
        scores = self.model.scores(vector, self.data.x_test)
        return summarize(
            [Reply("all", measure(scores, self.data.y_test, self.schema.task))], self.schema.task
        )[0]

    def identity(self) -> str:
        """Digest of all that decides what the model will be after so many epochs: settings and rows."""
        settings = {key: value for key, value in asdict(self.settings).items() if key != "epochs"}
        facts = {"spec": asdict(self.spec), "settings": settings, "seed": self.seed}
        digest = hashlib.sha256(canonical_json(facts).encode())
        for rows in (self.data.x_train, self.data.y_train):
            digest.update(np.ascontiguousarray(rows).tobytes())
        return digest.hexdigest()

    def _epoch(self, epoch: int) -> np.random.Generator:
        return generator(self.seed, "parallel", epoch)


def job_of(config: Config, prepared: Prepared) -> Job:
    """The job of `config` on the sites that passed their checks, encoded as a federation would encode them.

    Raises `BadInput` where no site did, or where the settings ask for what this training does not do.
    """
    refuse(config)
    if not prepared.passing:
        raise BadInput("no site's data can be used; mend the data or the checks in params.yaml")
    schema, fraction = Schema.load(prepared.sites), config.data.test_fraction

    def folder(site: str) -> Path:
        return prepared.sites / site

    statistics = (train_statistics(folder(s), schema, config.seed, s, fraction) for s in prepared.passing)
    if config.data.encoding == "schema":
        features = agreed(schema, config.data.standardize)
    else:
        features = merge(statistics, schema, config.data.standardize)
    sites = [load_site(folder(s), schema, features, config.seed, s, fraction) for s in prepared.passing]
    spec = model_spec(config.model, schema, features)
    local = config.local
    settings = Training(local.lr, local.momentum, local.weight_decay, local.epochs, local.batch_size)
    return Job(spec, build_model(spec), features, schema, union(sites), settings, config.seed)


def union(sites: list[SiteData]) -> SiteData:
    """All sites' rows, one site after another."""
    names = ("x_train", "y_train", "x_test", "y_test")
    return SiteData(*(np.concatenate([getattr(site, name) for site in sites]) for name in names))


def refuse(config: Config) -> None:
    """Raise `BadInput` for settings that only a federated run keeps: they would be silently lost here."""
    if config.privacy.mode != "none":
        raise BadInput(
            f"privacy.mode {config.privacy.mode} is not kept by data-parallel training, whose processes see all rows; "
            "use fedcore simulate, or set privacy.mode=none"
        )
    if config.local.steps is not None:
        raise BadInput(
            f"local.steps {config.local.steps} is a client's round; leave it out, --epochs says how long this training is"
        )
    if config.local.algorithm != "sgd":
        raise BadInput(
            f"local.algorithm {config.local.algorithm} is a client's of a federation; set local.algorithm=sgd"
        )


def share(rows: NDArray[np.intp], rank: int, world: int) -> NDArray[np.intp]:
    """The rows of a step that `rank` computes: shares differ by one row at most, and may be empty."""
    return rows[chunks(len(rows), world)[rank]]


def descend(vector: Vector, velocity: Vector, gradient: Vector, settings: Training) -> tuple[Vector, Vector]:
    """The next parameters and velocity, both new: whoever still reads the old ones reads them whole.

    The step of a client's local SGD (`fedcore.adapters.numpy`), bit for bit.
    """
    pulled = gradient + np.float32(settings.weight_decay) * vector
    velocity = np.float32(settings.momentum) * velocity + pulled
    return vector - np.float32(settings.lr) * velocity, velocity


def settings_of(config: Config) -> str:
    """The settings of a run in one spelling, for ranks to compare before they load anything."""
    tree = config_tree(config)
    return canonical_json({key: tree[key] for key in ("seed", "data", "checks", "model", "local")})


def diverged(epoch: int, loss: float, lr: float) -> BadInput:
    """The error of a training whose loss is no number any more."""
    return BadInput(
        f"training diverged in epoch {epoch}: the loss is {loss}; lower local.lr, which is {lr:g}"
    )
