"""The sections of ``params.yaml`` as frozen dataclasses: types, ranges, defaults, and what each key means."""

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from fedcore.config.asynchrony import AsynchronyConfig
from fedcore.config.evaluate import EvaluateConfig
from fedcore.config.kinds import CLOSED, Count, Device, Name, Positive, Share
from fedcore.config.local import LocalConfig
from fedcore.config.oort import OortConfig
from fedcore.config.personal import PersonalConfig
from fedcore.config.privacy import PrivacyConfig
from fedcore.config.time import TimeConfig


@dataclass(frozen=True, config=CLOSED)
class RunConfig:
    """How long, under which name, and on what.

    `engine` is where simulated clients train, with the same bytes: ``serial`` in this process, ``threads`` of it,
    ``workers`` or ``ray`` (so many `workers`, 0: one a core); ``batched`` trains a cohort in one computation on
    `device`, which rounds otherwise; None is ``workers`` where some are asked for. A process keeps encoded rows in
    memory between rounds while they fit into `memory_mb`, and as many clients train at once.
    """

    name: Name | None = None
    rounds: Annotated[int, Field(ge=1)] = 10
    engine: Literal["serial", "threads", "workers", "ray", "batched"] | None = None
    device: Device = "cpu"
    workers: Annotated[int, Field(ge=0, le=64)] = 0
    memory_mb: Annotated[int, Field(ge=1)] = 1024


@dataclass(frozen=True, config=CLOSED)
class PartitionConfig:
    """How a set without natural clients is split; ``natural`` takes the client column.

    With ``labels`` each client holds `labels_per_client` classes, drawn, or those of `labels_of_clients`: for each
    client the numbers of its classes, from 0 in their sorted order, as a partition that others used.
    """

    scheme: Literal["natural", "iid", "dirichlet", "labels", "quantity"] = "natural"
    clients: Annotated[int, Field(ge=1, le=100_000)] = 10
    alpha: Positive = 0.5
    labels_per_client: Annotated[int, Field(ge=1)] = 2
    labels_of_clients: tuple[tuple[Annotated[int, Field(ge=0)], ...], ...] = ()
    min_rows: Annotated[int, Field(ge=1)] = 10


@dataclass(frozen=True, config=CLOSED)
class DataConfig:
    """Which data: a name of the catalog, or ``own`` with a path.

    `months` choose the data versions of sets that have months. `sites` limits and orders the
    clients; empty means all. `client_column` and `label` are needed for an own table. Without
    `standardize` numbers, and the label of a regression, are learned from as they are. The `encoding` comes
    from ``statistics`` of all clients' rows, or from the ``schema`` alone, so that none leave. Test rows are
    drawn, `test_fraction` of them, unless `published_split` asks for the division that a set was
    published with; sets that exist in no other form always have theirs.
    """

    name: str = "flights"
    path: str | None = None
    client_column: str | None = None
    label: str | None = None
    task: Literal["classification", "regression"] = "classification"
    months: tuple[Annotated[int, Field(ge=1, le=12)], ...] = (1, 2, 3, 4, 5, 6)
    sites: tuple[str, ...] = ()
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    published_split: bool = False
    standardize: bool = True
    encoding: Literal["statistics", "schema"] = "statistics"
    partition: PartitionConfig = field(default_factory=PartitionConfig)


@dataclass(frozen=True, config=CLOSED)
class ChecksConfig:
    """What a site's data must satisfy before it may take part."""

    min_rows: Annotated[int, Field(ge=1)] = 100
    max_missing: Share = 0.5
    max_duplicates: Share = 0.0
    docs: bool = True


@dataclass(frozen=True, config=CLOSED)
class ModelConfig:
    """A built-in model, or the framework's own by a factory's import path ``package.module:callable``."""

    framework: Literal["torch", "numpy", "sklearn", "tensorflow", "mlx"] = "torch"
    name: str = "mlp"
    hidden: tuple[Annotated[int, Field(ge=1, le=65_536)], ...] = (64, 32)
    factory: str | None = None


@dataclass(frozen=True, config=CLOSED)
class CohortConfig:
    """Who is asked each round, and how many must answer.

    `rate` is the Poisson sampling rate. ``cyclic`` asks one group of clients after another, of
    `privacy.bands` groups, ``turns`` one client after another. All others but ``all`` ask `size` clients:
    ``uniform`` by chance, ``available`` by chance among those who may start now, ``quality`` those with
    more rows more often, ``fair`` those asked least, ``oort`` by loss and speed. A
    round goes on when at least `quorum` of the cohort answered within `deadline_s` seconds. On the
    virtual clock `over_select` times `size` are asked, and the first `size` replies end the round.
    Clients whose suspicion is above `max_suspicion` are not asked; 1 asks everyone.
    """

    sampling: Literal[
        "all", "uniform", "poisson", "cyclic", "turns", "quality", "fair", "available", "oort"
    ] = "all"
    size: Annotated[int, Field(ge=1)] = 10
    rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    quorum: Annotated[float, Field(gt=0, le=1)] = 0.5
    min_clients: Annotated[int, Field(ge=1)] = 2
    deadline_s: Positive = 600.0
    over_select: Annotated[float, Field(ge=1)] = 1.0
    oort: OortConfig = field(default_factory=OortConfig)
    max_suspicion: Annotated[float, Field(gt=0, le=1)] = 1.0


@dataclass(frozen=True, config=CLOSED)
class CombineConfig:
    """The aggregation rule, and what an update weighs in a mean: its sample count or one.

    `f` is the number of liars to survive; robust rules need it. `mixers` come before the rule, in
    order. Robust rules, and the mean of mixed rows, ignore weights. `options` are the rule's other
    options, `mixer_options` those of each mixer by its name.
    """

    rule: str = "mean"
    weights: Literal["samples", "equal"] = "samples"
    f: Count | None = None
    mixers: tuple[str, ...] = ()
    options: dict[str, int | float] = field(default_factory=dict)
    mixer_options: dict[str, dict[str, int | float]] = field(default_factory=dict)


@dataclass(frozen=True, config=CLOSED)
class ServerConfig:
    """The server's optimizer on the combined update, and how its rate changes over the rounds.

    `beta` is the momentum, `beta2` the memory of squares, `tau` the adaptivity; with `bias_correction`
    ``adam`` is Adam itself, without it FedAdam as published. The rate rises for `warmup` rounds, then
    stays, falls by `decay` a round, or along a cosine over `period` rounds.
    """

    optimizer: str = "sgd"
    lr: Positive = 1.0
    beta: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    tau: Positive = 1e-3
    bias_correction: bool = False
    schedule: Literal["constant", "exponential", "cosine"] = "constant"
    warmup: Count = 0
    decay: Annotated[float, Field(gt=0, le=1)] = 0.99
    period: Annotated[int, Field(ge=1)] = 100


@dataclass(frozen=True, config=CLOSED)
class Gate:
    """A limit on one metric of a model version."""

    metric: str
    min: float | None = None
    max: float | None = None


@dataclass(frozen=True, config=CLOSED)
class PromotionConfig:
    """Registered model, gates, and whether a person must approve."""

    model: Name = "flights-delay"
    gates: tuple[Gate, ...] = ()
    better_than_champion: str | None = None
    approval: bool = False


@dataclass(frozen=True, config=CLOSED)
class EdgeConfig:
    """Limits an exported model must keep, and where the signed repository lies."""

    parity: Positive = 1e-4
    max_bytes: Annotated[int, Field(ge=1)] = 50_000_000
    max_latency_ms: Positive = 50.0
    expires_days: Annotated[int, Field(ge=1)] = 30


@dataclass(frozen=True, config=CLOSED)
class MonitorConfig:
    """When drift or degradation asks for retraining.

    `max_drift` is a population stability index; `max_drop` the fall of the metric in points of 1.
    """

    metric: str = "auc"
    max_drift: Positive = 0.25
    max_drop: Positive = 0.03


@dataclass(frozen=True, config=CLOSED)
class TrackingConfig:
    """Where runs are tracked: an MLflow address, None for a database in the work directory."""

    uri: str | None = None
    experiment: Annotated[str, Field(min_length=1)] = "fedcore"
    enabled: bool = True


@dataclass(frozen=True, config=CLOSED)
class StoreConfig:
    """Where the journal and the blobs lie: SQLAlchemy and fsspec addresses, None for the work directory."""

    url: str | None = None
    blobs: str | None = None


@dataclass(frozen=True, config=CLOSED)
class Config:
    """Everything a run depends on."""

    seed: Count = 1
    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    checks: ChecksConfig = field(default_factory=ChecksConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    local: LocalConfig = field(default_factory=LocalConfig)
    cohort: CohortConfig = field(default_factory=CohortConfig)
    combine: CombineConfig = field(default_factory=CombineConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    time: TimeConfig = field(default_factory=TimeConfig)
    personal: PersonalConfig = field(default_factory=PersonalConfig)
    asynchrony: AsynchronyConfig = field(default_factory=AsynchronyConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    promotion: PromotionConfig = field(default_factory=PromotionConfig)
    edge: EdgeConfig = field(default_factory=EdgeConfig)
    monitor: MonitorConfig = field(default_factory=MonitorConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
