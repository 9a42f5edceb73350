"""Clients that still have much to teach and are quick, and a share of those never tried. Lai et al. 2021, arXiv:2010.06081.

Utility is what the paper's algorithm 1 says, with what leaves a client: its number of rows and its
mean training loss. Left out are the pacer (the preferred duration is a quantile of those seen) and
the list of clients asked too often.
"""

import numpy as np

from fedcore.config import Config, OortConfig
from fedcore.history import History
from fedcore.selection.draw import Places, Population, Selection, Turn, weighted
from fedcore.selection.informed import drawn
from fedcore.types import Floats


def oort(config: Config, population: Population) -> Selection:
    """Cohorts by utility, and by chance among those not asked yet: of these at least one a round while there are any."""
    settings = config.cohort.oort

    def pick(ready: Places, size: int, rng: np.random.Generator, turn: Turn) -> Places:
        tried = turn.history.column("asked", len(population.clients), 0.0)[ready] > 0
        known, new = ready[tried], ready[~tried]
        explored = max(1, round(exploration(settings, turn.round) * size))
        explored = min(len(new), max(explored, size - len(known)))
        useful = utility(settings, turn.history, population.rows, turn.round)[known]
        best = _best(known, useful, size - explored, settings.cutoff, rng)
        return np.concatenate([best, rng.choice(new, size=explored, replace=False)])

    looks = "the losses that all clients told"
    return Selection(
        drawn(config, population, pick), None, sized=True, remembers=True, looks=looks, told=True
    )


def exploration(settings: OortConfig, round_number: int) -> float:
    """The share of a cohort that was never asked before: it falls from round to round.

    >>> exploration(OortConfig(), 0), exploration(OortConfig(), 1000)
    (0.9, 0.2)
    """
    return max(settings.least_exploration, settings.exploration * settings.exploration_decay**round_number)


def utility(settings: OortConfig, history: History, rows: Floats, round_number: int) -> Floats:
    """How much is expected of each client, (clients,): rows · loss + bonus for long absence, less for the slow.

    Losses above their quantile `outliers` count as that, so that nobody is asked for a wild claim alone.
    Equation 2 and algorithm 1, lines 10 to 15; of a client without a loss only its absence counts.
    """
    n = len(rows)
    loss, seconds = history.column("loss", n), history.column("seconds", n)
    worth: Floats = rows * np.where(np.isnan(loss), 0.0, loss)
    if not np.isnan(loss).all():
        worth = np.minimum(worth, np.quantile(worth[~np.isnan(loss)], settings.outliers))
    last = history.column("last", n, float(round_number)) + 1
    worth = worth + np.sqrt(settings.staleness * np.log(round_number + 1.0) / last)
    if np.isnan(seconds).all():
        return worth
    preferred = np.nanquantile(seconds, settings.preferred)
    slow = np.maximum(np.where(np.isnan(seconds), preferred, seconds), np.finfo(np.float64).tiny)
    penalty: Floats = np.minimum(1.0, (preferred / slow) ** settings.penalty)
    return worth * penalty


def _best(known: Places, useful: Floats, size: int, cutoff: float, rng: np.random.Generator) -> Places:
    """`size` of `known` by chance in proportion to utility, among those not far below the last of the best."""
    if size == 0:
        return known[:0]
    last = np.partition(useful, len(useful) - size)[len(useful) - size]
    good = useful >= cutoff * last
    return weighted(known[good], useful[good], size, rng)
