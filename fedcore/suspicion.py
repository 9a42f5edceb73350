"""What looks wrong about a round's updates, and whom it makes suspect over the rounds.

Nothing here decides what is combined: that is the rule's. These are facts for the record, for
people, and for a selection that asks whom it trusts less, less often. Pure functions of a
matrix; none of them is used under privacy, where findings about single updates may not leave.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from fedcore.rules.network import comparators
from fedcore.types import Floats, Updates, Vector

FAR, TIMES = 6.0, 3.0  # a norm is unusual this many deviations, and at least this factor, from the median
ALIKE = 0.7  # cosine of two updates, seen from the round's centre, above which they may be coordinated
CELLS = 2**18  # numbers looked at for groups: columns are drawn at random when there are more
NETWORK = 128  # rows up to which a sorting network is faster than sorting each column
MEMORY = 0.7  # of yesterday's suspicion that is left today
_TO_DEVIATION = 1.4826  # median absolute deviation to standard deviation of a normal


def unusual_norms(norms: Floats) -> dict[int, str]:
    """Rows whose norm is zero, or far from the median's in proportion: row number to reason.

    The distance is of logarithms, in median absolute deviations (Iglewicz and Hoaglin 1993), so
    that one liar at a thousand times the size is found however much honest clients differ.
    """
    found = {int(row): "the update is zero" for row in np.flatnonzero(norms == 0)}
    rows = np.flatnonzero(norms > 0)
    if len(rows) < 3:
        return found
    logs = np.log(norms[rows])
    middle = float(np.median(logs))
    spread = _TO_DEVIATION * float(np.median(np.abs(logs - middle)))
    limit = max(FAR * spread, np.log(TIMES))
    return found | {
        int(row): f"its norm is {np.exp(gap):.3g} times the median's"
        for row, gap in zip(rows, logs - middle, strict=True)
        if abs(gap) > limit
    }


def coordinated(updates: Updates, rng: np.random.Generator) -> tuple[tuple[int, ...], ...]:
    """Groups of rows of `updates` (n, d) that move together as the others do not, each in row order.

    Two rows are tied when their cosine, seen from the coordinate-wise median, is above `ALIKE` and
    above the median of all pairs by `FAR` deviations; a group is what ties connect, unless it is
    half of the rows or more. Clients with very similar data look the same: a group is a question,
    not a verdict. After Fung et al. 2020, arXiv:1808.04866, with a robust centre and no weights.
    """
    n = len(updates)
    if n < 4:
        return ()
    sampled = _sampled(updates, rng)
    seen = sampled.astype(np.float64)
    seen -= _middle(sampled)
    lengths = np.linalg.norm(seen, axis=1)
    cosines = (seen @ seen.T) / np.maximum(np.outer(lengths, lengths), np.finfo(np.float64).tiny)
    pairs = cosines[np.triu_indices(n, 1)]
    middle = float(np.median(pairs))
    spread = _TO_DEVIATION * float(np.median(np.abs(pairs - middle)))
    tied = cosines > max(ALIKE, middle + FAR * spread)
    return tuple(group for group in _connected(tied) if 1 < len(group) < n / 2)


def evidence(
    accepted: Mapping[str, float], flagged: Sequence[str], refused: Sequence[str]
) -> dict[str, float]:
    """How suspect each client made itself in one round, from 0 to 1.

    `accepted` is how much of each update the rule kept. Being refused or flagged counts 1; losing
    more to the rule than the median client did counts the difference, so that a rule which keeps
    one update of all accuses nobody.
    """
    usual = float(np.median(list(accepted.values()))) if accepted else 0.0
    found = {client: max(0.0, usual - kept) for client, kept in accepted.items()}
    return found | dict.fromkeys([*flagged, *refused], 1.0)


def remembered(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    """Suspicion after a round: a moving average of evidence; who was not heard slowly regains trust."""
    scores = {
        client: round(MEMORY * before.get(client, 0.0) + (1 - MEMORY) * now.get(client, 0.0), 6)
        for client in sorted({*before, *now})
    }
    return {client: score for client, score in scores.items() if score > 0}


def trusted(
    clients: Sequence[str], suspicion: Mapping[str, float], limit: float, least: int
) -> tuple[str, ...]:
    """`clients` whose suspicion is at most `limit`, in order; never fewer than the `least` least suspect."""
    if not suspicion:
        return tuple(clients)
    ranked = sorted(clients, key=lambda client: (suspicion.get(client, 0.0), client))
    kept = {c for place, c in enumerate(ranked) if place < least or suspicion.get(c, 0.0) <= limit}
    return tuple(client for client in clients if client in kept)


def _sampled(updates: Updates, rng: np.random.Generator) -> Updates:
    """`updates`, or as many of its columns, drawn at random, as make `CELLS` numbers."""
    n, d = updates.shape
    columns = max(CELLS // n, 4096)
    return updates if d <= columns else updates[:, np.sort(rng.integers(d, size=columns))]


def _middle(updates: Updates) -> Floats:
    """The median of each column (d,), as `numpy.median` of float64 has it; few rows are sorted side by side."""
    n = len(updates)
    low, high = (n - 1) // 2, n // 2
    ordered = _by_network(updates, low, high + 1) if n <= NETWORK else np.sort(updates, axis=0)
    middle: Floats = (ordered[low].astype(np.float64) + ordered[high]) / 2
    return middle


def _by_network(updates: Updates, low: int, high: int) -> list[Vector]:
    """The rows of `updates` sorted column by column, as far as those from `low` to below `high` need it."""
    ordered: list[Vector] = list(updates)
    for first, second in comparators(len(updates), low, high).tolist():
        smaller = np.minimum(ordered[first], ordered[second])
        ordered[second] = np.maximum(ordered[first], ordered[second])
        ordered[first] = smaller
    return ordered


def _connected(tied: np.ndarray) -> list[tuple[int, ...]]:
    """Connected sets of rows of a symmetric truth table, by their first row."""
    left, groups = set(range(len(tied))), []
    while left:
        group, border = set[int](), {min(left)}
        while border:
            group |= border
            border = {int(j) for i in border for j in np.flatnonzero(tied[i])} - group
        left -= group
        groups.append(tuple(sorted(group)))
    return groups
