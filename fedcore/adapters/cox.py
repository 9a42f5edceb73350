"""Survival: who is at a higher risk, learned from times at which something happened or was last known not to have.

A label is one number: the time, from above 0 on, at which the event was seen, or minus the time at
which its row was last seen without it. The maths of Cox's model, numpy alone.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedcore.types import Floats


class Pairs(NamedTuple):
    """Of rows whose order is known: how many pairs, and in how many the risk agrees (ties at half)."""

    concordant: float
    comparable: int


def times(y: NDArray[np.float32]) -> tuple[Floats, NDArray[np.bool_]]:
    """Times (n,), and whether the event was seen (n,), of labels."""
    return np.abs(y.astype(np.float64)), y > 0


def partial_likelihood(risk: NDArray[np.float32], y: NDArray[np.float32]) -> tuple[float, Floats]:
    """Cox's negative partial log-likelihood over the rows' number, and its gradient (n,) in the rows' risks.

    Those at risk at a time are all rows with that time or a later one, Breslow's rule for ties. Cox
    1972, equation 12; Breslow 1974.
    """
    time, event = times(y)
    order = np.argsort(-time, kind="stable")
    scores, seen = risk.astype(np.float64)[order], event[order].astype(np.float64)
    at_risk = np.logaddexp.accumulate(scores)  # log Σ exp of everyone up to here
    last = np.searchsorted(-time[order], -time[order], side="right") - 1  # ties share the last one's
    at_risk = at_risk[last]
    loss = float(((at_risk - scores) * seen).sum() / len(scores))
    slope = np.empty_like(scores)
    slope[order] = (_shares(scores, at_risk, seen, time[order]) - seen) / len(scores)
    return loss, slope


def _shares(scores: Floats, at_risk: Floats, seen: Floats, time: Floats) -> Floats:
    """For each row Σ over events at which it was at risk of its share exp(risk) / Σ exp, rows in falling time.

    Sums run over logarithms from the earliest event on, so that no risk is too large for them.
    """
    terms = np.where(seen > 0, -at_risk, -np.inf)
    later = np.logaddexp.accumulate(terms[::-1])[::-1]  # events from here to the earliest
    first = np.searchsorted(-time, -time, side="left")  # ties: all events of the same time count
    return np.exp(np.minimum(scores + later[first], np.log(len(scores) + 1.0)))


def concordance(risk: NDArray[np.float32], y: NDArray[np.float32]) -> Pairs:
    """Harrell's pairs: one row's event was seen before the other's time, or at it while the other went on.

    They agree where the earlier row has the higher risk. Harrell et al. 1982.
    """
    time, event = times(y)
    concordant, comparable = 0.0, 0
    for row in np.flatnonzero(event):
        later = (time > time[row]) | ((time == time[row]) & ~event)
        comparable += int(later.sum())
        concordant += float((risk[row] > risk[later]).sum() + 0.5 * (risk[row] == risk[later]).sum())
    return Pairs(concordant, comparable)
