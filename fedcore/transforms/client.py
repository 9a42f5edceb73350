"""The client chain that a configuration asks for: subset → compress → clip → noise → mask."""

from fedcore.config import PrivacyConfig
from fedcore.transforms.chain import chain, identity
from fedcore.transforms.clip import clip
from fedcore.transforms.noise import Normal, gaussian
from fedcore.types import Transform


def client_chain(
    privacy: PrivacyConfig, limit: float | None = None, normal: Normal | None = None
) -> Transform:
    """What is done to an update before it leaves the client.

    `limit` is the round's clipping norm where it is adaptive, `normal` the client's own source of
    noise, which ``local`` privacy needs.
    """
    if privacy.mode == "central":
        return clip(privacy.clip if limit is None else limit)
    if privacy.mode == "local":
        assert normal is not None, "a client adds noise from a source of its own"
        return chain(clip(privacy.clip), gaussian(privacy.noise_multiplier * privacy.clip, normal))
    return identity
