"""Every error that fedcore raises, and the exit code it ends the command line with.

    FedcoreError                 1
    ├── BadInput                 2   something a person wrote cannot be used
    │   ├── BadConfig                a key of params.yaml: its path, the value, what is allowed
    │   ├── UnknownName              a name that is not in a table: the known ones
    │   ├── AnsweredBefore           a client is asked twice for one private release
    │   ├── BadData                  a site's data: which site, what is wrong with it
    │   └── TooFewClients            fewer clients than the rule, the check or the guarantee needs
    ├── PlanRefused              3   a composition that would break a guarantee
    ├── BudgetSpent              4   the next release would exceed the privacy budget
    ├── StorageError             5   a folder or database cannot be read or written
    │   ├── CorruptState             something stored is not what was written
    │   ├── RunConflict              the run's name is taken by other settings
    │   └── RunBusy                  another process works on the run right now
    ├── ServiceError             6   a server, a port or a program is not there
    │   └── PeerLost                 another process of a data-parallel training is gone, or silent
    ├── GateRefused              7   a model may not be promoted
    ├── BundleRefused            8   a signed bundle does not hold what it claims
    ├── MissingExtra             9   a library of an optional part is not installed
    ├── AuditFailed             10   canaries show that more leaks than the accountant says
    └── Diverged                11   training left the finite numbers: a loss, an update or the model

A message says what was wrong, the value seen and the next step, in one sentence.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class FedcoreError(Exception):
    """Root of the tree; catches everything a user can cause or meet."""

    exit_code = 1


class BadInput(FedcoreError):
    """Something a person wrote cannot be used."""

    exit_code = 2


class BadConfig(BadInput):
    """A key of the configuration holds a value that is not allowed, or is not known."""

    def __init__(self, path: str, value: object, why: str) -> None:
        self.path = path
        super().__init__(f"{path}: {why}, got {value!r}; change it in params.yaml or with --set {path}=…")


class UnknownName(BadInput):
    """A name that is in no table."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        super().__init__(f"unknown {kind} {name!r}; {hint}known: {', '.join(names) or 'none'}")


class AnsweredBefore(BadInput):
    """A private round was answered before; it says nothing of the client's rows, so the server may be told."""


class BadData(BadInput):
    """A site's data cannot be used."""

    def __init__(self, where: str, why: str, step: str = "mend the file and run again") -> None:
        self.where = where
        super().__init__(f"data of {where}: {why}; {step}")


class TooFewClients(BadInput):
    """Fewer clients than needed."""

    def __init__(self, needed: int, got: int, purpose: str) -> None:
        self.needed, self.got = needed, got
        super().__init__(
            f"{purpose} needs at least {needed} clients, got {got}; add clients or lower the requirement in params.yaml"
        )


class PlanRefused(FedcoreError):
    """The parts of a plan do not hold together."""

    exit_code = 3


class BudgetSpent(FedcoreError):
    """The next round would spend more privacy than allowed."""

    exit_code = 4

    def __init__(
        self,
        epsilon: float,
        limit: float,
        round_number: int,
        step: str = "raise privacy.epsilon in params.yaml",
    ) -> None:
        self.epsilon, self.limit, self.round_number = epsilon, limit, round_number
        other = (
            f"stop at round {round_number - 1}" if round_number else "add noise (privacy.noise_multiplier)"
        )
        super().__init__(
            f"privacy budget spent: ε would be {epsilon:.3f} after round {round_number}, limit {limit:g}; "
            f"{step} or {other}"
        )


class StorageError(FedcoreError):
    """A folder or database cannot be read or written."""

    exit_code = 5


class CorruptState(StorageError):
    """Something stored is not what was written; it is never silently made anew."""


class RunConflict(StorageError):
    """A run of this name exists with other settings."""


class RunBusy(StorageError):
    """Another process works on this run right now."""


class ServiceError(FedcoreError):
    """A server, a port or a program is not there."""

    exit_code = 6


class PeerLost(ServiceError):
    """Another process of a data-parallel training is gone, or was silent for too long."""

    def __init__(self, rank: int, who: str, timeout_s: float, why: str) -> None:
        super().__init__(
            f"rank {rank} lost {who} ({why}; the most it waits is {timeout_s:g} s); start the same command again, "
            "it goes on after the last epoch that was kept"
        )


class GateRefused(FedcoreError):
    """A model version does not pass a promotion gate."""

    exit_code = 7

    def __init__(self, gate: str, value: object, limit: object, step: str) -> None:
        self.gate, self.value, self.limit = gate, value, limit
        super().__init__(f"promotion refused by gate {gate}: value {value}, limit {limit}; {step}")


class BundleRefused(FedcoreError):
    """A bundle's signature, digest, expiry or version does not hold."""

    exit_code = 8


class MissingExtra(FedcoreError):
    """A library that an optional part needs is not installed."""

    exit_code = 9

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(f"{library} is not installed; run: pip install 'fedcore-mlops[{extra}]'")


class AuditFailed(FedcoreError):
    """A lower bound on ε exceeds the upper one."""

    exit_code = 10

    def __init__(self, lower: float, upper: float, bound: str, confidence: float) -> None:
        self.lower, self.upper = lower, upper
        super().__init__(
            f"privacy audit failed: at {confidence:.1%} confidence the training leaks ε ≥ {lower:.3f} ({bound}), but its "
            f"accountant says ε ≤ {upper:.3f}; trust no ε of this pipeline until clip, noise and sampling were checked"
        )


class Diverged(FedcoreError):
    """Training left the finite numbers; the model of the last good round is kept."""

    exit_code = 11

    def __init__(self, what: str, step: str = "lower local.lr") -> None:
        super().__init__(f"training diverged: {what}; {step}")
