"""What happens to one update on its way: each is ``(init, apply, bound)``, and a chain of them is one."""

from fedcore.transforms.chain import chain, identity
from fedcore.transforms.clip import clip
from fedcore.transforms.noise import add_gaussian, system_normal

__all__ = ["add_gaussian", "chain", "clip", "identity", "system_normal"]
