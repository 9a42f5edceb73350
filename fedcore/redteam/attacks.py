"""The table of attacks: what liars send, and what they do to their rows before they train.

A new attack is one function in the file of its kind and one line here, with a test that it moves
the plain mean: an attack that does nothing makes every rule look robust.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from fedcore.data.federated import SiteData
from fedcore.errors import UnknownName
from fedcore.redteam import data, rows, search
from fedcore.types import Updates

Forge = Callable[..., Updates]  # (honest (h, d), own (f, d), *, rng, aggregate, **options) -> (f, d) float32
Poison = Callable[[SiteData, int, np.random.Generator], SiteData]  # site, classes (0: a regression), rng


class Attack(NamedTuple):
    """What liars send instead of their updates, and what they train on (None: their rows as they are)."""

    forge: Forge
    poison: Poison | None = None


HONEST = Attack(rows.unchanged)  # what every attack is compared with
ATTACKS: Mapping[str, Attack] = MappingProxyType(
    {
        "sign_flip": Attack(rows.sign_flip),
        "scaling": Attack(rows.scaling),
        "gaussian": Attack(rows.gaussian),
        "ipm": Attack(rows.ipm),
        "optimal_ipm": Attack(search.optimal_ipm),
        "alie": Attack(rows.alie),
        "optimal_alie": Attack(search.optimal_alie),
        "min_max": Attack(search.min_max),
        "min_sum": Attack(search.min_sum),
        "mimic": Attack(rows.mimic),
        "label_flip": Attack(rows.unchanged, data.label_flip),
        "backdoor": Attack(rows.replacement, data.backdoor),
        "collude": Attack(rows.collude),
        "non_finite": Attack(rows.non_finite),
    }
)


def attack(name: str) -> Attack:
    """The attack of that name. Raises `UnknownName` with the known ones."""
    if name not in ATTACKS:
        raise UnknownName("attack", name, ATTACKS)
    return ATTACKS[name]
