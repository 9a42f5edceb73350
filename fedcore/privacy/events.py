"""What was released, as facts: an event says nothing about ε.

An event is one release, or for `RecordSgd` and `MatrixSums` one round's or one run's releases
together. Each kind states its unit and its neighbouring relation; the accountant interprets it, and
refuses what it cannot prove. Events are written to the ledger as JSON and read back there.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar, Literal, TypeAlias

from fedcore.errors import CorruptState
from fedcore.types import Json

Unit = Literal["client", "record"]
Relation = Literal["add_or_remove", "replace", "zero_out"]


@dataclass(frozen=True)
class GaussianSum:
    """A sum of clipped client updates plus Gaussian noise.

    `noise_multiplier` is the noise's standard deviation over the clipping norm. `sampling_rate`
    is the Poisson rate at which the server drew the cohort in secret, None when no
    amplification may be claimed. Neighbouring relation: one client added or removed.

    Adaptive clipping releases a noisy count beside the sum: the two together are one such event,
    of the joint noise multiplier (Andrew et al. 2021, arXiv:1905.03871, theorem 1).
    """

    kind: ClassVar[str] = "gaussian_sum"
    unit: ClassVar[Unit] = "client"
    relation: ClassVar[Relation] = "add_or_remove"

    noise_multiplier: float
    sampling_rate: float | None


@dataclass(frozen=True)
class DiscreteGaussianSum:
    """The same sum on a grid of integers, with discrete Gaussian noise.

    `steps` is the noise's standard deviation in steps of the grid, `dimension` the number of
    coordinates: what the noise's distance from a rounded continuous Gaussian depends on. Canonne,
    Kamath, Steinke 2020, arXiv:2004.00010.
    """

    kind: ClassVar[str] = "discrete_gaussian_sum"
    unit: ClassVar[Unit] = "client"
    relation: ClassVar[Relation] = "add_or_remove"

    noise_multiplier: float
    sampling_rate: float | None
    steps: float
    dimension: int


@dataclass(frozen=True)
class LaplaceSum:
    """A sum of client updates clipped in the L1 norm plus Laplace noise.

    `noise_multiplier` is the noise's scale b over the L1 clipping norm.
    """

    kind: ClassVar[str] = "laplace_sum"
    unit: ClassVar[Unit] = "client"
    relation: ClassVar[Relation] = "add_or_remove"

    noise_multiplier: float
    sampling_rate: float | None


@dataclass(frozen=True)
class SkellamSum:
    """An integer sum with symmetric Skellam noise, on which no amplification is claimed.

    `variance` of the noise actually in the sum, `l1` and `l2` how far one client can move it, all
    in steps of the grid. Agarwal, Kairouz, Liu 2021, arXiv:2110.04995, theorem 3.5.
    """

    kind: ClassVar[str] = "skellam_sum"
    unit: ClassVar[Unit] = "client"
    relation: ClassVar[Relation] = "add_or_remove"

    variance: float
    l1: float
    l2: float


@dataclass(frozen=True)
class FixedSizeSum:
    """A sum over exactly `cohort` of `population` clients drawn in secret without replacement.

    One client replaced by another moves it by two clips. `noise_multiplier` is the standard
    deviation over one clip. Wang, Balle, Kasiviswanathan 2019, arXiv:1808.00087.
    """

    kind: ClassVar[str] = "fixed_size_sum"
    unit: ClassVar[Unit] = "client"
    relation: ClassVar[Relation] = "replace"

    noise_multiplier: float
    cohort: int
    population: int


@dataclass(frozen=True)
class MatrixSums:
    """All sums of a run with correlated noise: tree aggregation or banded matrix factorisation.

    One client, taking part as often as the plan allows, moves the sequence by `sensitivity` clips
    in the metric of noise of deviation `noise_multiplier` clips, so the whole run is one Gaussian
    release. It is charged at the run's first round; the others are `Covered`. No amplification.
    Choquette-Choo et al. 2023, arXiv:2306.08153; Kairouz et al. 2021, arXiv:2103.00039.
    """

    kind: ClassVar[str] = "matrix_sums"
    unit: ClassVar[Unit] = "client"
    relation: ClassVar[Relation] = "zero_out"

    noise_multiplier: float
    sensitivity: float
    rounds: int


@dataclass(frozen=True)
class Covered:
    """A release that the charge of the run's first round already paid for; costs nothing more."""

    kind: ClassVar[str] = "covered"
    unit: ClassVar[Unit] = "client"
    relation: ClassVar[Relation] = "zero_out"

    first_round: int


@dataclass(frozen=True)
class LocalRelease:
    """One client's own update, noised by the client before it leaves.

    Whatever its update is, another would have moved the release by at most two clips:
    `noise_multiplier` is the noise over one clip, ``gaussian`` (L2) or ``laplace`` (L1).
    """

    kind: ClassVar[str] = "local_release"
    unit: ClassVar[Unit] = "client"
    relation: ClassVar[Relation] = "replace"

    noise_multiplier: float
    mechanism: str = "gaussian"


@dataclass(frozen=True)
class RecordSgd:
    """`steps` of DP-SGD inside a silo, each on a Poisson sample of its records.

    Silos hold disjoint records, so a round costs what its costliest silo costs, and the event is
    that silo's. Abadi et al. 2016, arXiv:1607.00133.
    """

    kind: ClassVar[str] = "record_sgd"
    unit: ClassVar[Unit] = "record"
    relation: ClassVar[Relation] = "add_or_remove"

    noise_multiplier: float
    sampling_rate: float
    steps: int


@dataclass(frozen=True)
class Judged:
    """A round's release for `training` and, beside it, the noisy sums by which its model was judged.

    Both are paid. The `evaluation` is of the same unit; its cohort is drawn apart from the round's.
    """

    kind: ClassVar[str] = "judged"

    training: "Event"
    evaluation: "Event"

    @property
    def unit(self) -> Unit:
        """That of the training."""
        return self.training.unit

    @property
    def relation(self) -> Relation:
        """That of the training."""
        return self.training.relation


Event: TypeAlias = (
    GaussianSum
    | DiscreteGaussianSum
    | LaplaceSum
    | SkellamSum
    | FixedSizeSum
    | MatrixSums
    | Covered
    | LocalRelease
    | RecordSgd
    | Judged
)
_KINDS: Mapping[str, type[Event]] = {
    kind.kind: kind
    for kind in (
        GaussianSum,
        DiscreteGaussianSum,
        LaplaceSum,
        SkellamSum,
        FixedSizeSum,
        MatrixSums,
        Covered,
        LocalRelease,
        RecordSgd,
        Judged,
    )
}


def event_tree(event: Event) -> Json:
    """The event as it is kept in the ledger."""
    if isinstance(event, Judged):
        parts = {"training": event_tree(event.training), "evaluation": event_tree(event.evaluation)}
        return {"kind": event.kind, **parts}
    return {"kind": event.kind, **asdict(event)}


def for_training(event: Event) -> Event:
    """What a round releases of its training alone."""
    return event.training if isinstance(event, Judged) else event


def event_from_json(tree: Mapping[str, Json]) -> Event:
    """The event that `event_tree` wrote. Raises `CorruptState` for any other: it is never skipped."""
    kind = _KINDS.get(str(tree.get("kind")))
    if kind is None:
        raise CorruptState(
            f"the ledger holds an event of unknown kind {tree.get('kind')!r}; use the fedcore that wrote it"
        )
    facts = {name: value for name, value in tree.items() if name != "kind"}
    if kind is Judged:
        return Judged(*(_part(facts, name) for name in ("training", "evaluation")))
    try:
        return kind(**facts)
    except TypeError:
        raise CorruptState(
            f"the ledger holds an event of kind {kind.kind} with the facts {sorted(facts)}; use the fedcore that wrote it"
        ) from None


def _part(facts: Mapping[str, Json], name: str) -> Event:
    part = facts.get(name)
    if not isinstance(part, Mapping):
        raise CorruptState(
            f"the ledger holds a judged round without its {name}; use the fedcore that wrote it"
        )
    return event_from_json(part)
