"""The words the rest of the code is written in: vectors, tasks, replies, records, and the seams.

A model is one flat float32 vector; n updates are one ``(n, d)`` matrix. `Fleet` is the only
way to a client, `Sink` the only way out for what happened. Nothing here does anything.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Vector: TypeAlias = NDArray[np.float32]  # (params,)
Updates: TypeAlias = NDArray[np.float32]  # (clients, params)
Weights: TypeAlias = NDArray[np.float64]  # (clients,)
Floats: TypeAlias = NDArray[np.float64]
Json: TypeAlias = Any  # what json.loads can return
Arrays: TypeAlias = Mapping[str, NDArray[Any]]

Rule: TypeAlias = Callable[..., Vector]  # (updates (n, d), weights (n,), *, f=…) -> (d,)
TaskKind = Literal["describe", "train", "evaluate"]


@dataclass(frozen=True)
class Task:
    """What the server asks of each client in a cohort.

    `model` is the flat vector the client starts from, None for ``describe``;
    `features` the federated feature statistics as JSON, None until they are known;
    `corrections` what a client adds to each of its gradients: a fleet hands each its own (`of`);
    `clip` the norm to clip the update to where that changes from round to round;
    `batch_sizes` those of clients whose memory is too small for that of the settings.
    """

    kind: TaskKind
    run: str
    round: int
    model: Vector | None = None
    features: Json = None
    corrections: Mapping[str, Vector] = field(default_factory=dict)
    clip: float | None = None
    batch_sizes: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def model_sha256(self) -> str | None:
        """The digest of the model the task starts from."""
        return None if self.model is None else vector_sha256(self.model)

    def of(self, client: str) -> "Task":
        """The task as `client` gets it: without what is meant for others."""
        if not self.corrections and not self.batch_sizes:
            return self
        own = {name: vector for name, vector in self.corrections.items() if name == client}
        size = {name: size for name, size in self.batch_sizes.items() if name == client}
        return replace(self, corrections=own, batch_sizes=size)


@dataclass(frozen=True)
class Reply:
    """What one client answered: facts (small JSON), a vector for ``train``, or an error.

    `round` and `model_sha256` say what the answer belongs to; an answer that names another round
    or model than the task's is refused.
    """

    client: str
    facts: Mapping[str, Json] = field(default_factory=dict)
    vector: Vector | None = None
    error: str | None = None
    round: int | None = None
    model_sha256: str | None = None


class Fleet(Protocol):
    """The one seam to the world: simulation, network and scripted fleets implement it."""

    @property
    def clients(self) -> Sequence[str]:
        """Names of all enrolled clients, sorted."""
        ...

    def ask(self, task: Task, clients: Sequence[str]) -> Iterator[Reply]:
        """Replies in whatever order they arrive; a client that is lost yields none."""
        ...


class Transform(NamedTuple):
    """A change of one update, and what it does to the norm.

    ``init() -> state``, ``apply(update, state, rng) -> (update, state)``, and ``bound``, which
    maps the largest L2 norm going in to the largest that can come out.
    """

    init: Callable[[], Any]
    apply: Callable[[Vector, Any, np.random.Generator], tuple[Vector, Any]]
    bound: Callable[[float], float]


@dataclass(frozen=True)
class Layout:
    """Names and shapes of the tensors inside a flat vector, in order."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def size(self) -> int:
        """Number of parameters."""
        return int(sum(np.prod(shape, dtype=np.int64) for shape in self.shapes))

    def split(self, vector: Vector) -> dict[str, Vector]:
        """Views into `vector`, one per tensor, in their shapes."""
        parts, start = {}, 0
        for name, shape in zip(self.names, self.shapes, strict=True):
            stop = start + int(np.prod(shape, dtype=np.int64))
            parts[name] = vector[start:stop].reshape(shape)
            start = stop
        return parts


@dataclass(frozen=True)
class RoundRecord:
    """What happened in one round, as every sink sees it.

    `epsilon` and `delta` are None when privacy is off. `client_metrics` holds quantiles over
    clients, never one client's value. `reduced` is how much of each update the rule kept where
    that is not all (0: dropped), `unusual` what was noticed about accepted updates, `groups` who
    moved together, `suspicion` each client's score from 0 to 1 after the round, `excluded` who was
    not asked because of it; all five are empty under central privacy. `clip` is the norm that updates
    were clipped to where that follows their quantile, else None. `virtual_s` is the virtual clock's time
    in seconds when the round ended, None on the real clock. `asynchrony` says how stale the updates of a
    version were (`fedcore.versions.told`), None for a round that waits. `seconds` and `committed_at` (Unix
    seconds) are observations of this execution and not part of `canonical`.
    """

    run: str
    round: int
    cohort: tuple[str, ...]
    replied: tuple[str, ...]
    dropped: tuple[str, ...]
    refused: Mapping[str, str]
    metrics: Mapping[str, float]
    client_metrics: Mapping[str, float]
    epsilon: float | None
    delta: float | None
    bytes_up: int
    bytes_down: int
    update_norm: float
    verdict: Literal["keep", "rollback"]
    model_sha256: str
    reduced: Mapping[str, float] = field(default_factory=dict)
    unusual: Mapping[str, str] = field(default_factory=dict)
    groups: tuple[tuple[str, ...], ...] = ()
    suspicion: Mapping[str, float] = field(default_factory=dict)
    excluded: tuple[str, ...] = ()
    clip: float | None = None
    virtual_s: float | None = None
    asynchrony: Mapping[str, float] | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    committed_at: float = 0.0

    def canonical(self) -> str:
        """Canonical JSON of the deterministic part: equal for a resumed and an undisturbed run."""
        facts = asdict(self)
        del facts["seconds"], facts["committed_at"]
        for name in ("virtual_s", "asynchrony"):
            if facts[name] is None:
                del facts[name]  # runs without it have the digests they had before there was such a thing
        return canonical_json(facts)


Sink: TypeAlias = Callable[[RoundRecord], None]


def canonical_json(value: Json) -> str:
    """The one spelling of a JSON value that digests are taken of: sorted keys, no blanks."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def vector_sha256(vector: Vector) -> str:
    """SHA-256 of a model's float32 little-endian bytes: the model's name everywhere."""
    return hashlib.sha256(np.ascontiguousarray(vector, dtype="<f4").tobytes()).hexdigest()
