"""What was released, as facts: an event says nothing about ε."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from fedcore.errors import CorruptState
from fedcore.types import Json


@dataclass(frozen=True)
class GaussianSum:
    """A sum of clipped client updates plus Gaussian noise.

    `noise_multiplier` is the noise's standard deviation over the clipping norm. `sampling_rate`
    is the Poisson rate at which the server drew the cohort in secret, None when no
    amplification may be claimed. Neighbouring relation: one client added or removed.
    """

    noise_multiplier: float
    sampling_rate: float | None

    def to_json(self) -> Json:
        """The event as it is kept in the ledger."""
        return {"kind": "gaussian_sum", **asdict(self)}


def event_from_json(tree: Mapping[str, Json]) -> GaussianSum:
    """The event that `to_json` wrote. An unknown kind raises `CorruptState`: it is never skipped."""
    if tree.get("kind") != "gaussian_sum":
        raise CorruptState(
            f"the ledger holds an event of unknown kind {tree.get('kind')!r}; use the fedcore that wrote it"
        )
    return GaussianSum(tree["noise_multiplier"], tree["sampling_rate"])
