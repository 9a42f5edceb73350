"""New clients: some are kept out of training, so that one can see what the model becomes with a few of their rows.

``personal.new_clients`` of the clients are not enrolled. After training each takes a few steps on a
few of its rows, and its held-out rows say what the model was worth to it before and after.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from fedcore.adapters.model import Model
from fedcore.config import Config, PersonalConfig
from fedcore.data.features import Features
from fedcore.data.federated import SiteData, load_site
from fedcore.data.prepare import Prepared
from fedcore.errors import BadInput, TooFewClients
from fedcore.local.heads import head_of
from fedcore.local.metrics import measure, summarize
from fedcore.local.personal import HEADS
from fedcore.local.sgd import sgd, training
from fedcore.local.work import Work, descend
from fedcore.rng import generator
from fedcore.session import Session
from fedcore.types import Json, Reply, Vector, canonical_json

NEW = "a new client: not trained on, see 'fedcore adapt'"


@dataclass(frozen=True)
class Adaptation:
    """What `steps` steps at `rate` on `samples` rows each make of a run's model for clients it never saw.

    `metrics` and `spread` are those of `fedcore.local.metrics.summarize`, ``personal_…`` after the
    steps; `clients` holds the same metrics of each client, `skipped` those with too few rows.
    """

    run: str
    samples: int
    steps: int
    rate: float
    metrics: Mapping[str, float]
    spread: Mapping[str, float]
    clients: Mapping[str, Mapping[str, float]]
    skipped: Mapping[str, str]

    def as_json(self) -> dict[str, Json]:
        """A JSON object with the fields' names."""
        return asdict(self)


def without_new(data: Prepared, config: Config) -> tuple[Prepared, tuple[str, ...]]:
    """The sites to train on, and the names of those drawn to stay out. Raises `TooFewClients` if too few are left."""
    count, known = config.personal.new_clients, sorted(data.passing)
    if not count:
        return data, ()
    if len(known) - count < config.cohort.min_clients:
        raise TooFewClients(
            count + config.cohort.min_clients, len(known), f"a run with personal.new_clients {count}"
        )
    drawn = generator(config.seed, "new clients").choice(known, count, replace=False)
    new = tuple(sorted(str(site) for site in drawn))
    passing = tuple(site for site in data.passing if site not in new)
    return replace(data, passing=passing, left_out={**data.left_out, **dict.fromkeys(new, NEW)}), new


def adapt(
    opened: Session,
    samples: int,
    steps: int,
    rate: float | None = None,
    progress: Callable[[str], None] | None = None,
) -> Adaptation:
    """How the model of a run does at its new clients before and after they adapt it.

    `rate` is that of the steps, None for ``personal.inner_lr``; a step takes ``local.batch_size`` of the
    rows, or all of them. `progress` hears of each client. Raises `BadInput` for a run that kept no client
    out, or whose clients may not tell how good a model is.
    """
    config = opened.config
    if config.privacy.mode != "none" and config.privacy.evaluation != "clear":
        how = config.privacy.evaluation
        raise BadInput(
            f"clients do not evaluate for others in the clear (privacy.evaluation: {how}), new ones neither"
        )
    new: list[str] = opened.body.get("new_clients", [])
    if not new:
        raise BadInput(
            f"run {opened.name} kept no client out of training; train one with -S personal.new_clients=10, say"
        )
    used = config.personal.inner_lr if rate is None else rate
    own = replace(config.personal, finetune_steps=steps, inner_lr=used)
    replies, skipped = [], {}
    for client in new:
        facts = _measured(opened, client, samples, own)
        if facts is None:
            skipped[client] = f"fewer than {samples} training rows, or none to be judged on"
        else:
            replies.append(Reply(client, facts))
        if progress:
            progress(client)
    task = opened.schema.task
    metrics, spread = summarize(replies, task)
    each = {reply.client: summarize([reply], task)[0] for reply in replies}
    return Adaptation(opened.name, samples, steps, used, metrics, spread, each, skipped)


def _measured(opened: Session, client: str, samples: int, own: PersonalConfig) -> dict[str, Json] | None:
    """What the client says of the model before and after; None where it has too few rows."""
    config, trained = opened.config, opened.trained()
    folder, fraction = Path(opened.notes["sites"]) / client, config.data.test_fraction
    features = Features.from_json(canonical_json(opened.body["features"]))
    data = load_site(folder, opened.schema, features, config.seed, client, fraction)
    if len(data.y_train) < samples or not len(data.y_test):
        return None
    chosen = generator(config.seed, "adapt", client).permutation(len(data.y_train))[:samples]
    few = SiteData(data.x_train[chosen], data.y_train[chosen], data.x_test, data.y_test)
    after = _adapted(opened, client, trained.model, trained.vector, few, own)

    def judged(vector: Vector) -> dict[str, Json]:
        return measure(trained.model.scores(vector, data.x_test), data.y_test, opened.schema.task)

    return {**judged(trained.vector), "personal": judged(after)}


def _adapted(
    opened: Session, client: str, model: Model, vector: Vector, few: SiteData, own: PersonalConfig
) -> Vector:
    """The model after the steps: all of it, or the head alone where heads are what clients have of their own."""
    rng = generator(opened.config.seed, "adapt steps", client)
    settings = training(opened.config.local, opened.rounds)
    if own.algorithm in HEADS:
        settings = replace(settings, mask=head_of(model.layout, own.head).astype(np.float32))
    work = Work(model, vector, {}, few, settings, own, sgd, rng, rng)
    return descend(work, own.finetune_steps, own.inner_lr)[0]
