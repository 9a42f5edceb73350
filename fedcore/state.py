"""What a round is given: the state it starts from, the plan of its functions, and where it is journaled and paid.

`round.py` is the fold over them; `plan.py` builds the plan.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, TypeAlias

import numpy as np

from fedcore.asynchrony import Asynchrony, Course
from fedcore.clock import Timing
from fedcore.convergence import Progress
from fedcore.history import History
from fedcore.local.control import Control
from fedcore.optimizers import Optimizer
from fedcore.privacy.events import Event
from fedcore.rules import Aggregation
from fedcore.selection import Draw
from fedcore.transforms.noise import Normal
from fedcore.types import Arrays, Floats, Json, Reply, Transform, Vector, vector_sha256


@dataclass(frozen=True)
class Outcome:
    """What a step leaves: facts (JSON) and arrays, both kept by the journal."""

    facts: Mapping[str, Json]
    arrays: Arrays = field(default_factory=dict)


@dataclass(frozen=True)
class State:
    """Everything that passes from one round to the next.

    `model_round` is the round whose release `model` is (-1: the initial model), `best_loss` the
    lowest evaluation loss so far, None before the first evaluation, `suspicion` the score of each
    client that has one. `rule` is what the
    aggregation rule remembers, `control` what the local algorithm's server part does, both with the
    model they led to. `clip` is the norm that adaptive clipping released last (None: not yet, or clipping is
    flat), `noise` what correlated noise must remember: both belong to what was released, so they
    move on when a round's model is rolled back. `now` is the virtual clock's time in seconds (0 on the
    real clock), `history` what is remembered of the clients asked so far where something asks for it,
    `progress` which round was best (None: none was judged), `course` where asynchronous training stands;
    these move on with every round.
    """

    run: str
    round: int
    model: Vector
    optimizer: Mapping[str, Vector]
    model_round: int = -1
    best_loss: float | None = None
    rule: Mapping[str, Vector] = field(default_factory=dict)
    control: Mapping[str, Vector] = field(default_factory=dict)
    suspicion: Mapping[str, float] = field(default_factory=dict)
    clip: float | None = None
    noise: Mapping[str, Floats] = field(default_factory=dict)
    now: float = 0.0
    history: History = field(default_factory=History)
    progress: Progress | None = None
    course: Course = field(default_factory=Course)

    @cached_property
    def model_sha256(self) -> str:
        """The digest of the model."""
        return vector_sha256(self.model)


@dataclass(frozen=True)
class Charge:
    """What a round releases, and so costs the population's account, at δ."""

    event: Callable[[int], Event]  # round -> what it releases
    delta: float


# (sum (d,), deviation of the noise, round, what it remembers) -> (noisy sum (d,), what to remember)
Mechanism: TypeAlias = Callable[
    [Floats, float, int, Mapping[str, Floats]], tuple[Floats, Mapping[str, Floats]]
]


@dataclass(frozen=True)
class Noise:
    """Central differential privacy: what is added to the sum, and what the sum is divided by.

    `mechanism` adds it; None is independent Gaussian noise on each coordinate, made of `normal`.
    """

    deviation: float  # of the noise on each coordinate of the sum, at the configured clip
    expected_cohort: float
    normal: Callable[[int], Normal]  # round -> source of standard normals
    mechanism: Mechanism | None = None


@dataclass(frozen=True)
class Adaptive:
    """A clipping norm that follows a quantile of the updates' norms: see `fedcore.transforms.adaptive`."""

    start: float  # norm of the first round, at which `Noise.deviation` is given
    quantile: float
    rate: float
    deviation: float  # of the noise on the count of unclipped clients
    expected_cohort: float
    normal: Callable[[int], Normal]  # round -> source of standard normals for the count
    guard: Callable[[float], Transform]  # norm -> what the server enforces at it


# (replies to an evaluation, round) -> metrics, and how they spread over clients
Summary: TypeAlias = Callable[[Iterable[Reply], int], tuple[dict[str, float], dict[str, float]]]


@dataclass(frozen=True)
class Plan:
    """A round's functions, all names resolved: built by `fedcore.plan.build_plan`."""

    seed: int
    clients: tuple[str, ...]
    draw: Draw
    chance: Callable[[str, int], np.random.Generator]  # run, round -> what the cohort is drawn with
    max_suspicion: float  # above it a client is not asked
    needed: Callable[[int], int]  # cohort size -> replies without which the round fails
    weights: Mapping[str, float]  # the server's own, never what a client claims
    guard: Transform  # what the server enforces on each update again
    adaptive: Adaptive | None  # if set, its guard at the round's norm takes the place of `guard`
    aggregate: Aggregation
    control: Control  # the server's part of the local algorithm
    noise: Noise | None  # of central privacy: what the server adds
    charge: Charge | None  # of any privacy: what each round costs
    optimizer: Optimizer
    evaluate_every: int  # and always after the last of `rounds`; 0: never, nobody is asked
    rounds: int
    judged_by: str  # the metric that must not exceed `rollback_factor` times its best
    rollback_factor: float
    doubt: float  # how far noise may have moved that metric, over the deviation that a share of it has
    follow: Callable[[Progress | None, int, Mapping[str, float], bool], Progress | None]  # see `followed`
    summarize: Summary
    judges: Callable[[str, int], Sequence[str]] | None = None  # run, round -> who evaluates; None: everyone
    judged_once: bool = False  # whether no client answers an evaluation twice
    features: Json = None
    timing: Timing | None = None  # of the virtual clock; None: the real one
    remembers: bool = False  # whether the history of clients is kept
    asynchrony: Asynchrony | None = None  # if set, nobody waits: see `fedcore.versions`


class RoundJournal(Protocol):
    """Where a round's outcomes survive a crash."""

    def once(self, step: str, compute: Callable[[], Outcome]) -> Outcome:
        """The outcome kept under `step`, or else that of `compute`, kept before it is returned."""
        ...

    def replies(self) -> Mapping[str, Reply]:
        """Replies kept so far, by client."""
        ...

    def reply(self, client: str) -> Reply | None:
        """The reply of one client, if it is kept."""
        ...

    def keep(self, reply: Reply) -> None:
        """Keep a reply; the first one of a client counts."""
        ...

    def kept(self, step: str) -> Outcome | None:
        """The outcome of a step, if it is kept."""
        ...

    def at(self, round_number: int) -> "RoundJournal":
        """The journal of another round of the same run."""
        ...

    def seconds(self) -> Mapping[str, float]:
        """Wall time of each step kept so far."""
        ...


class Ledger(Protocol):
    """Where privacy is paid for."""

    def reserve(self, run: str, round_number: int, event: Event) -> float:
        """Charge the round before it asks anyone; the ε spent with it. Raises `BudgetSpent`."""
        ...

    def settle(
        self, run: str, round_number: int, event: Event, released: Mapping[str, Json] | None = None
    ) -> None:
        """Note what was released for a charge; `released` are facts of this round, such as its clip."""
        ...
