"""ε by Rényi divergences: looser than loss distributions, but known for more mechanisms, and a second opinion."""

import logging
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from fedcore.errors import MissingExtra
from fedcore.privacy.releases import Gaussian, Laplace, Release, Skellam, WithoutReplacement
from fedcore.types import Floats


def rdp_epsilon(counts: Mapping[Release, int], delta: float) -> float | None:
    """ε at `delta` of all releases together, None where a release has no known Rényi divergence.

    Mironov 2017, arXiv:1702.07476; to ε by Canonne et al. 2020, arXiv:2004.00010, proposition 12.
    """
    rdp = _library()
    total = np.zeros(len(rdp.DEFAULT_RDP_ORDERS))
    for release, times in counts.items():
        divergences = _divergences(release)
        if divergences is None:
            return None
        total += times * divergences
    return float(rdp.compute_epsilon(rdp.DEFAULT_RDP_ORDERS, total, delta)[0])


def skellam_divergence(release: Skellam, order: float) -> float:
    """Rényi divergence of symmetric Skellam noise, by its bound at the next whole order.

    Agarwal, Kairouz, Liu 2021, arXiv:2110.04995, theorem 3.5 with variance μ: αΔ₂²/2μ +
    min(((2α-1)Δ₂² + 6Δ₁)/4μ², 3Δ₁/2μ) for whole α > 1; divergences do not fall with their order.
    """
    whole, variance, square = math.ceil(order), release.variance, release.l2**2
    beyond = ((2 * whole - 1) * square + 6 * release.l1) / (4 * variance**2)
    return whole * square / (2 * variance) + min(beyond, 3 * release.l1 / (2 * variance))


@lru_cache(maxsize=1024)
def _divergences(release: Release) -> Floats | None:
    """At each of the library's orders: one release's divergence, ∞ where its series does not converge."""
    import dp_accounting

    rdp = _library()
    if isinstance(release, Skellam):
        return np.array([skellam_divergence(release, order) for order in rdp.DEFAULT_RDP_ORDERS])
    relation = dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE
    match release:
        case Gaussian(multiplier, rate):
            event = dp_accounting.GaussianDpEvent(multiplier)
            if rate < 1:
                event = dp_accounting.PoissonSampledDpEvent(rate, event)
        case Laplace(multiplier, rate):
            if rate < 1:
                return None
            event = dp_accounting.LaplaceDpEvent(multiplier)
        case WithoutReplacement(multiplier, cohort, population):
            relation = dp_accounting.NeighboringRelation.REPLACE_ONE
            noise = dp_accounting.GaussianDpEvent(multiplier)
            event = dp_accounting.SampledWithoutReplacementDpEvent(population, cohort, noise)
    accountant = rdp.RdpAccountant(neighboring_relation=relation)
    accountant.compose(event)
    return np.asarray(accountant.rdp, dtype=np.float64)


def _expected(record: logging.LogRecord) -> bool:
    """Drop the library's note on orders that it leaves out: a smaller set of orders is only less tight."""
    return "failed to converge" not in str(record.msg)


def _library() -> Any:
    try:
        from dp_accounting.rdp import rdp_privacy_accountant
    except ImportError:
        raise MissingExtra("dp-accounting", "privacy") from None
    logging.getLogger("absl").addFilter(_expected)  # the same filter twice is one
    return rdp_privacy_accountant
