"""A smaller student of a trained run: taught on rows of one place, judged on the place's held-out rows.

The student is written as any trained model is, so it can be exported and served like one.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

from fedcore.adapters.model import Training, build_model, model_spec
from fedcore.adapters.trained import TrainedModel
from fedcore.config.load import overridden
from fedcore.data.federated import SiteData, load_site
from fedcore.errors import BadConfig, BadInput, PlanRefused
from fedcore.local.distill import Lesson, Student, distilled
from fedcore.local.metrics import measure, summarize
from fedcore.rng import generator
from fedcore.session import Session
from fedcore.types import Json, Reply, Vector


@dataclass(frozen=True)
class Pupil:
    """One of the compared models: its parameters, their bytes, and its metrics on the held-out rows."""

    parameters: int
    bytes: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Distillation:
    """A run's model (`teacher`) beside the `student` and the same small model taught by `labels` alone.

    `rows` were taught on, `held_out` judged on; `folder` holds the student.
    """

    run: str
    place: str
    rows: int
    held_out: int
    teacher: Pupil
    student: Pupil
    labels: Pupil
    folder: str

    def as_json(self) -> dict[str, Json]:
        """A JSON object with the fields' names."""
        return asdict(self)


def distil(
    opened: Session,
    place: str,
    overrides: Iterable[str],
    settings: Training,
    lesson: Lesson,
    folder: Path,
    progress: Callable[[], None] = lambda: None,
) -> Distillation:
    """Teach a smaller model what a run's model knows of the rows at `place`, and write it to `folder`.

    `place` is a site of the run or a folder of shards like theirs; `overrides` say what differs from
    the run's settings, such as ``model.hidden=[8]``. `progress` hears of each epoch of the two
    trainings. Raises `PlanRefused` for a private run's own site, `BadInput` for rows that cannot be
    used and a student that cannot be taught.
    """
    config = overridden(opened.config, overrides)
    teacher = opened.trained()
    spec = model_spec(config.model, opened.schema, teacher.features)
    student = build_model(spec)
    if not hasattr(student, "pullback"):
        raise BadConfig(
            "model.framework", spec.framework, "cannot be taught by another model, use numpy or torch"
        )
    data = _rows(opened, place, teacher)
    taught = teacher.model.scores(teacher.vector, data.x_train)

    def trained(how: Lesson) -> Vector:
        start = student.init(generator(config.seed, "distil", "init"))
        rng = generator(config.seed, "distil", "train")
        rows = (data.x_train, data.y_train)
        return distilled(cast(Student, student), start, rows, taught, settings, how, rng, progress)

    vector, alone = trained(lesson), trained(replace(lesson, label_weight=1.0))
    small = TrainedModel(spec, vector, teacher.features, opened.schema)
    small.save(folder)
    return Distillation(
        run=opened.name,
        place=place,
        rows=len(data.y_train),
        held_out=len(data.y_test),
        teacher=_judged(teacher, data),
        student=_judged(small, data),
        labels=_judged(replace(small, vector=alone), data),
        folder=str(folder),
    )


def _judged(one: TrainedModel, data: SiteData) -> Pupil:
    facts = measure(one.model.scores(one.vector, data.x_test), data.y_test, one.spec.task)
    metrics, _ = summarize([Reply("held-out", facts)], one.spec.task)
    return Pupil(one.vector.size, one.vector.nbytes, metrics)


def _rows(opened: Session, place: str, teacher: TrainedModel) -> SiteData:
    """The rows at a site of the run, or in a folder."""
    config, sites = opened.config, Path(opened.notes["sites"])
    known = place in opened.plan.clients
    if known and opened.plan.charge:
        raise PlanRefused(
            f"--rows {place} with privacy.mode {config.privacy.mode}: the student would learn from a site's rows without "
            "the noise that the run's guarantee stands on; name a folder of public rows"
        )
    folder = sites / place if known else Path(place)
    if not folder.is_dir():
        raise BadInput(
            f"{place!r} is neither a site of run {opened.name} nor a folder; sites: {', '.join(opened.plan.clients[:10])}"
        )
    data = load_site(
        folder, opened.schema, teacher.features, config.seed, folder.name, config.data.test_fraction
    )
    if not len(data.y_test):
        raise BadInput(f"{place} has no held-out row to judge a student on; name a place with more rows")
    return data
