"""What liars send when they know a formula: functions ``(honest (h, d), own (f, d), …) -> (f, d)``.

`own` is what the liars would have sent had they been honest. Whoever writes an attack is given
everything: all honest updates, and the aggregation. Arithmetic is float64, results are float32.
"""

from collections.abc import Callable
from statistics import NormalDist
from typing import TypeAlias

import numpy as np

from fedcore.types import Floats, Updates, Vector

Aggregate: TypeAlias = Callable[
    [Updates], Vector
]  # honest rows, then forged ones -> what the server makes of them
Rng: TypeAlias = np.random.Generator


def unchanged(honest: Updates, own: Updates, *, rng: Rng, aggregate: Aggregate) -> Updates:
    """Their own updates: the attack, if there is one, is in the data."""
    return own.copy()


def sign_flip(honest: Updates, own: Updates, *, rng: Rng, aggregate: Aggregate) -> Updates:
    """Their own updates, reversed. Li et al. 2019, arXiv:1811.03761."""
    return -own


def scaling(
    honest: Updates, own: Updates, *, rng: Rng, aggregate: Aggregate, factor: float = 1000.0
) -> Updates:
    """Their own updates times `factor`: one such row is all that a mean sees."""
    return narrow(own.astype(np.float64) * factor)


def gaussian(
    honest: Updates, own: Updates, *, rng: Rng, aggregate: Aggregate, factor: float = 10.0
) -> Updates:
    """Normal noise, each row about `factor` times as long as an honest one. Blanchard et al. 2017, arXiv:1703.02757."""
    size = np.sqrt(np.mean(honest.astype(np.float64) ** 2))
    return narrow(factor * size * rng.standard_normal(own.shape))


def ipm(honest: Updates, own: Updates, *, rng: Rng, aggregate: Aggregate, tau: float = 0.5) -> Updates:
    """The honest mean times ``-tau``: the inner product with the truth becomes negative.

    Xie et al. 2019, arXiv:1903.03936.
    """
    return repeated(-tau * mean_of(honest), own)


def alie(honest: Updates, own: Updates, *, rng: Rng, aggregate: Aggregate, z: float | None = None) -> Updates:
    """The honest mean less `z` standard deviations: a little in every coordinate, unseen in each.

    `z` is by default `alie_z` of the numbers of clients. Baruch et al. 2019, arXiv:1902.06156, algorithm 3.
    """
    z = alie_z(len(honest) + len(own), len(own)) if z is None else z
    return repeated(mean_of(honest) - z * deviation_of(honest), own)


def mimic(honest: Updates, own: Updates, *, rng: Rng, aggregate: Aggregate) -> Updates:
    """The honest row furthest along the leading direction of the honest spread, as if it were theirs.

    One client gets more votes; where clients differ, that is enough. Karimireddy et al. 2022,
    arXiv:2006.09365 (here for each round by itself).
    """
    spread = honest.astype(np.float64) - mean_of(honest)
    leading = np.linalg.eigh(spread @ spread.T).eigenvectors[
        :, -1
    ]  # of the rows: as far as they reach along it
    return np.repeat(honest[[int(np.abs(leading).argmax())]], len(own), axis=0)


def replacement(honest: Updates, own: Updates, *, rng: Rng, aggregate: Aggregate) -> Updates:
    """Their own updates times n / f, so that a mean lands on their model.

    Model replacement of Bagdasaryan et al. 2020, arXiv:1807.00459, the effort shared by f.
    """
    return narrow(own.astype(np.float64) * ((len(honest) + len(own)) / len(own)))


def collude(honest: Updates, own: Updates, *, rng: Rng, aggregate: Aggregate, factor: float = 1.0) -> Updates:
    """Identical rows, their own mean times ``-factor``: no two honest rows are so near to one another."""
    return repeated(-factor * mean_of(own), own)


def non_finite(honest: Updates, own: Updates, *, rng: Rng, aggregate: Aggregate) -> Updates:
    """Their own updates with one NaN, and every other row infinite."""
    forged = own.copy()
    forged[:, 0] = np.nan
    forged[1::2] = np.inf
    return forged


def alie_z(clients: int, liars: int) -> float:
    """How many standard deviations stay unseen: most honest clients are still further out.

    Baruch et al. 2019, arXiv:1902.06156, algorithm 3. Zero or more; at most 3 where the liars alone are nearly a majority.
    """
    honest = clients - liars
    supporters = clients // 2 + 1 - liars
    unseen = min(max(0.5, (honest - supporters) / honest), NormalDist().cdf(3))
    return NormalDist().inv_cdf(unseen)


def mean_of(rows: Updates) -> Floats:
    """Mean of `rows` (d,) in float64."""
    mean: Floats = rows.mean(axis=0, dtype=np.float64)
    return mean


def deviation_of(rows: Updates) -> Floats:
    """Standard deviation of each coordinate (d,) in float64."""
    deviation: Floats = rows.std(axis=0, dtype=np.float64)
    return deviation


def repeated(row: Floats, own: Updates) -> Updates:
    """`row` once for each of the liars, float32."""
    return np.repeat(narrow(row)[None], len(own), axis=0)


def narrow(values: Floats) -> Updates:
    """`values` as float32, finite: what is too large is the largest there is."""
    limit = float(np.finfo(np.float32).max)
    return np.clip(values, -limit, limit).astype(np.float32)
