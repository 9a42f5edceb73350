"""The client chain that a configuration asks for: subset → compress → clip → noise → mask."""

from fedcore.config import PrivacyConfig
from fedcore.transforms.chain import identity
from fedcore.transforms.clip import clip
from fedcore.types import Transform


def client_chain(privacy: PrivacyConfig) -> Transform:
    """What is done to an update before it leaves the client, and again by the server."""
    return clip(privacy.clip) if privacy.mode == "central" else identity
