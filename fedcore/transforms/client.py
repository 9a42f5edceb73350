"""The client chain that a configuration asks for: subset → compress → clip → noise → mask."""

import numpy as np

from fedcore.config import PrivacyConfig
from fedcore.transforms.chain import chain, identity
from fedcore.transforms.clip import clip
from fedcore.transforms.laplace import add_laplace, clip_l1, seeded_laplace, system_laplace
from fedcore.transforms.noise import add_gaussian, adding, seeded_normal, system_normal
from fedcore.types import Transform


def client_chain(
    privacy: PrivacyConfig, limit: float | None = None, seeded: np.random.Generator | None = None
) -> Transform:
    """What is done to an update before it leaves the client.

    `limit` is the round's clipping norm where it is adaptive. Noise of ``local`` privacy comes from
    the system's source, or in a simulation from `seeded`.
    """
    if privacy.mode == "central":
        bounded = clip_l1 if privacy.mechanism == "laplace" else clip
        return bounded(privacy.clip if limit is None else limit)
    return _noised(privacy, seeded) if privacy.mode == "local" else identity


def _noised(privacy: PrivacyConfig, seeded: np.random.Generator | None) -> Transform:
    """Clip, then noise of the multiplier times the clip: the update of one client, fit to be seen by anyone."""
    scale = privacy.noise_multiplier * privacy.clip
    if privacy.mechanism == "laplace":
        laplace = system_laplace if seeded is None else seeded_laplace(seeded)
        return chain(clip_l1(privacy.clip), adding(lambda update: add_laplace(update, scale, laplace)))
    normal = system_normal if seeded is None else seeded_normal(seeded)
    return chain(clip(privacy.clip), adding(lambda update: add_gaussian(update, scale, normal)))
