"""Who spent what of which account, from verified entries."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedcore.errors import CorruptState
from fedcore.ledger.account import Account, Terms
from fedcore.ledger.chain import Entry

TOLERANCE = 1e-3  # of ε, between the accountant that told it and the one that checks it


@dataclass(frozen=True)
class RunSpend:
    """One run's part of an account.

    `epsilon` is of the run alone. ε does not add up over runs, so `share` is the run's part of the
    account's ε by what each of its charges added when it was made. `released` of its `charged`
    rounds were settled; the others were begun, and count.
    """

    run: str
    identity: str
    charged: int
    released: int
    epsilon: float
    share: float


@dataclass(frozen=True)
class AccountSpend:
    """An account: its terms, its limit now, ε spent and left, its runs in the order of their first charge.

    `path` is, for each charge in order, the run's name, ε after it and the limit it was held to.
    """

    account: str
    terms: Terms
    limit: float
    spent: float
    remaining: float
    runs: tuple[RunSpend, ...]
    path: tuple[tuple[str, float, float], ...]


def spending(found: Sequence[Entry]) -> list[AccountSpend]:
    """Each account of the entries, in the order in which they were opened.

    Raises `CorruptState` where an account tells less ε than its own charges cost.
    """
    names = dict.fromkeys(entry.account for entry in found)
    return [_account(name, [entry for entry in found if entry.account == name]) for name in names]


def _account(name: str, found: Sequence[Entry]) -> AccountSpend:
    account = Account(name)
    told: list[tuple[str, float, float]] = []
    added: dict[str, float] = {}
    labels = _labels(found)
    spent = 0.0
    for entry in found:
        account.add(entry)
        if entry.kind == "reserve":
            identity, now = str(entry.identity), float(entry.body["epsilon"])
            added[identity] = added.get(identity, 0.0) + now - spent
            spent = now
            told.append((labels[identity], spent, account.limit))
    terms = account.terms
    if terms is None:
        raise CorruptState(f"privacy ledger: account {name} was never opened; use the fedcore that wrote it")
    cost = account.epsilon(terms.delta)
    if cost > spent * (1 + TOLERANCE):
        raise CorruptState(
            f"privacy ledger: account {name} tells ε = {spent:.4f} and its charges cost {cost:.4f}; "
            "use the fedcore that wrote it, nothing may be released until then"
        )
    runs = tuple(
        _run(account, identity, labels[identity], terms, part, spent) for identity, part in added.items()
    )
    return AccountSpend(name, terms, account.limit, spent, max(0.0, account.limit - spent), runs, tuple(told))


def _run(account: Account, identity: str, label: str, terms: Terms, part: float, spent: float) -> RunSpend:
    return RunSpend(
        run=label,
        identity=identity,
        charged=sum(of == identity for of, _ in account.charges),
        released=sum(of == identity for of, _ in account.settled),
        epsilon=account.epsilon_of(identity, terms.delta),
        share=part / spent if spent else 0.0,
    )


def _labels(found: Sequence[Entry]) -> dict[str, str]:
    """A name for each identity: the run's, with the start of its identity where two runs have one name."""
    named = {entry.identity: str(entry.run) for entry in found if entry.identity is not None}
    names = list(named.values())
    return {i: name if names.count(name) == 1 else f"{name} ({i[:6]})" for i, name in named.items()}
