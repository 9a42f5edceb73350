"""Ways to make clients out of rows that have none: equal, by class, by size; all drawn from a seed.

A partitioner is a pure function ``(labels (n,), clients, rng, *, min_rows, …) -> row numbers of
each client``: every row exactly once, no client below `min_rows`, or a refusal in one sentence.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedcore.config import PartitionConfig
from fedcore.errors import BadConfig, BadInput
from fedcore.rng import generator

Rows: TypeAlias = NDArray[np.intp]
Partitioner: TypeAlias = Callable[..., list[Rows]]

TRIES = 200  # draws before a minimum size counts as out of reach


def iid(labels: NDArray[Any], clients: int, rng: np.random.Generator, *, min_rows: int = 1) -> list[Rows]:
    """Shuffled rows in equal parts."""
    _refuse_too_many(len(labels), clients, min_rows)
    return [np.sort(rows) for rows in np.array_split(rng.permutation(len(labels)), clients)]


def dirichlet(
    labels: NDArray[Any], clients: int, rng: np.random.Generator, *, alpha: float, min_rows: int = 1
) -> list[Rows]:
    """Each class is dealt to the clients by proportions from Dirichlet(`alpha`): small alpha, few classes a client.

    Drawn again until every client has `min_rows`. Li et al. 2022, arXiv:2102.02079, section 4.1.
    """
    _refuse_too_many(len(labels), clients, min_rows)
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    for _ in range(TRIES):
        dealt = [_deal(rng.permutation(rows), rng.dirichlet(np.full(clients, alpha))) for rows in classes]
        parts = [np.sort(np.concatenate(client)) for client in zip(*dealt, strict=True)]
        if min(map(len, parts)) >= min_rows:
            return parts
    raise _out_of_reach(min_rows, clients, len(labels), f"alpha {alpha:g}", "raise data.partition.alpha")


def few_labels(
    labels: NDArray[Any],
    clients: int,
    rng: np.random.Generator,
    *,
    labels_per_client: int = 2,
    labels_of_clients: Sequence[Sequence[int]] = (),
    min_rows: int = 1,
) -> list[Rows]:
    """Each client owns `labels_per_client` classes and shares their rows equally with the other owners.

    A client's first class is dealt in turn, so each has an owner; the others are drawn at random. Li et al.
    2022, arXiv:2102.02079, section 4.1. With `labels_of_clients` nothing is dealt: each owns the classes of those
    numbers, from 0 in their sorted order.
    """
    _refuse_too_many(len(labels), clients, min_rows)
    classes = np.unique(labels)
    if labels_of_clients:
        _refuse_unfit(labels_of_clients, clients, len(classes))
    elif labels_per_client > len(classes):
        raise BadConfig(
            "data.partition.labels_per_client",
            labels_per_client,
            f"must be at most {len(classes)}, the classes there are",
        )
    elif clients * labels_per_client < len(classes):
        raise BadConfig(
            "data.partition.labels_per_client",
            labels_per_client,
            f"{clients} clients with so few labels leave some of the {len(classes)} classes without an owner",
        )
    parts: list[list[Rows]] = [[] for _ in range(clients)]
    owned = labels_of_clients or _dealt(len(classes), clients, labels_per_client, rng)
    for number, label in enumerate(classes):
        owners = [client for client in range(clients) if number in owned[client]]
        shares = np.array_split(rng.permutation(np.flatnonzero(labels == label)), len(owners))
        for owner, rows in zip(owners, shares, strict=True):
            parts[owner].append(rows)
    sites = [np.sort(np.concatenate(part)) for part in parts]
    if min(map(len, sites)) < min_rows:
        if labels_of_clients:
            under, step = "the labels given", "give fewer clients the same label"
        else:
            under, step = f"{labels_per_client} labels each", "raise data.partition.labels_per_client"
        raise _out_of_reach(min_rows, clients, len(labels), under, step)
    return sites


def _dealt(classes: int, clients: int, each: int, rng: np.random.Generator) -> list[set[int]]:
    """Which classes each client owns: the first is dealt in turn, and the others drawn.

    Where there are fewer clients than classes, those that have no owner yet are dealt before any is drawn.
    """
    turn = rng.permutation(classes)
    owned = [{int(turn[client % classes])} for client in range(clients)]
    left = list(turn[clients:])  # classes without an owner
    for client in rng.permutation(clients):
        while len(owned[client]) < each:
            free = [number for number in range(classes) if number not in owned[client]]
            owned[client].add(int(left.pop() if left else rng.choice(free)))
    return owned


def _refuse_unfit(owned: Sequence[Sequence[int]], clients: int, classes: int) -> None:
    """Raise `BadConfig` unless `owned` gives each of the `clients` classes that are there, and each class an owner."""
    field, held = "data.partition.labels_of_clients", {number for each in owned for number in each}
    if len(owned) != clients:
        raise BadConfig(
            field, len(owned), f"must name the classes of {clients} clients (data.partition.clients)"
        )
    if not all(owned):
        raise BadConfig(field, [], "leaves a client without a class; give each one or more")
    if max(held) >= classes:
        raise BadConfig(field, max(held), f"must number classes from 0 to {classes - 1}")
    if len(held) < classes:
        missing = min(set(range(classes)) - held)
        raise BadConfig(field, sorted(held), f"leaves class {missing} without an owner; give it to a client")


def quantity(
    labels: NDArray[Any], clients: int, rng: np.random.Generator, *, alpha: float, min_rows: int = 1
) -> list[Rows]:
    """Shuffled rows in parts whose sizes are Dirichlet(`alpha`): small alpha, a few large clients.

    Every client gets `min_rows`, the rest is dealt. Li et al. 2022, arXiv:2102.02079, section 4.3.
    """
    _refuse_too_many(len(labels), clients, min_rows)
    rows = rng.permutation(len(labels))
    floor = np.array_split(rows[: clients * min_rows], clients)
    rest = _deal(rows[clients * min_rows :], rng.dirichlet(np.full(clients, alpha)))
    return [np.sort(np.concatenate(part)) for part in zip(floor, rest, strict=True)]


PARTITIONERS: dict[str, Partitioner] = {
    "iid": iid,
    "dirichlet": dirichlet,
    "labels": few_labels,
    "quantity": quantity,
}
OPTIONS = {
    "dirichlet": ("alpha",),
    "labels": ("labels_per_client", "labels_of_clients"),
    "quantity": ("alpha",),
}


def draw(labels: NDArray[Any], settings: PartitionConfig, seed: int) -> list[Rows]:
    """Row numbers of each client under `settings`, a function of the seed."""
    options = {name: getattr(settings, name) for name in OPTIONS.get(settings.scheme, ())}
    rng = generator(seed, "partition", settings.scheme)
    return PARTITIONERS[settings.scheme](labels, settings.clients, rng, min_rows=settings.min_rows, **options)


def _deal(rows: Rows, shares: NDArray[np.float64]) -> list[Rows]:
    """`rows` cut at the cumulated `shares`."""
    return np.split(rows, (np.cumsum(shares)[:-1] * len(rows)).astype(np.intp))


def _refuse_too_many(rows: int, clients: int, min_rows: int) -> None:
    if rows < clients * max(min_rows, 1):
        raise _out_of_reach(min_rows, clients, rows, "any split", "lower data.partition.clients")


def _out_of_reach(min_rows: int, clients: int, rows: int, under: str, step: str) -> BadInput:
    return BadInput(
        f"data.partition.min_rows {min_rows} cannot be met by {clients} clients of {rows} rows under {under}; "
        f"{step}, or lower data.partition.min_rows"
    )
