"""Adaptive clipping: the norm follows a quantile of the updates' norms, through a noisy count.

Andrew, Thakkar, McMahan, Ramaswamy 2021, arXiv:1905.03871. The count is of clients that were NOT
clipped: their share falls short of the quantile where the norm is too small, and the norm grows.
Counting clipped clients with the same rule drives it away from the quantile on both sides.
"""

from math import exp, sqrt

from fedcore.errors import PlanRefused

# The norm stays a positive float32 whatever the noise does: bounding what was released costs nothing.
_LEAST, _MOST = 1e-30, 1e30


def vote(arrived: float, limit: float, says_unclipped: bool) -> float:
    """A client's part of the count: 1/2 if its update was within `limit`, −1/2 if it was clipped.

    `arrived` is the norm of what the client sent. A client clips before it sends, which hides
    how long its update was, so it says whether that changed anything. A claim that the
    arriving norm belies does not count, and a lie moves the count by no more than another update
    would: whatever a client sends, its part stays within 1/2 of the 0 of one that is absent.
    """
    return 0.5 if says_unclipped and arrived <= limit else -0.5


def following(limit: float, share: float, quantile: float, rate: float) -> float:
    """The norm of the next round, given the noisy `share` of clients that were not clipped.

    ``C · exp(-rate · (share - quantile))``, equation 2 and algorithm 1.
    """
    return min(max(limit * exp(-rate * (share - quantile)), _LEAST), _MOST)


def sum_multiplier(joint: float, count_noise: float) -> float:
    """The noise multiplier of the sum with which sum and count together cost what `joint` alone costs.

    ``(z^-2 - (2 σ_b)^-2)^-1/2``, theorem 1; `count_noise` is σ_b, of a count that one client moves by
    1/2. Raises `PlanRefused` where the count alone costs more.
    """
    if 2 * count_noise <= joint:
        raise PlanRefused(
            f"privacy.clipping adaptive: noise of {count_noise:g} on the count of unclipped clients alone costs more "
            f"than privacy.noise_multiplier {joint:g} allows; set privacy.count_noise above {joint / 2:g}, "
            "ask a larger cohort, or set privacy.clipping: flat"
        )
    return 1 / sqrt(joint**-2 - (2 * count_noise) ** -2)
