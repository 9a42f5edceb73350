"""What a mode of privacy is given, what it gives back, and where its randomness comes from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedcore.config import Config, PrivacyConfig
from fedcore.errors import PlanRefused
from fedcore.rng import generator, secret_generator
from fedcore.rules import Aggregation
from fedcore.selection import Selection
from fedcore.state import Adaptive, Charge, Noise
from fedcore.transforms.chain import identity
from fedcore.types import Transform

Chance = Callable[[str, int], np.random.Generator]  # run, round -> what the cohort is drawn with


@dataclass(frozen=True)
class Protection:
    """The private parts of a plan; what each is, `fedcore.state.Plan` says."""

    chance: Chance
    guard: Transform = identity
    noise: Noise | None = None
    adaptive: Adaptive | None = None
    charge: Charge | None = None
    evaluates: bool = True
    judges: Callable[[str, int], Sequence[str]] | None = None
    judged_once: bool = False


@dataclass(frozen=True)
class Setting:
    """The settings, and what they were made into so far.

    `rows` are each client's training rows, `size` the number of the model's parameters: None while
    its features are not known.
    """

    config: Config
    rows: Mapping[str, int]
    chosen: Selection
    combined: Aggregation
    size: int | None
    run: str

    @property
    def privacy(self) -> PrivacyConfig:
        """The section ``privacy``."""
        return self.config.privacy

    @property
    def cohort(self) -> float:
        """How many clients a round asks on average: fixed before anyone answers."""
        clients, cohort = len(self.rows), self.config.cohort
        if self.chosen.sized:
            return float(cohort.size)
        return {
            "all": float(clients),
            "poisson": clients * cohort.rate,
            "cyclic": clients / self.privacy.bands,
            "turns": 1.0,
        }[cohort.sampling]

    @property
    def dimension(self) -> int:
        """The number of the model's parameters. Raises `PlanRefused` while it is not known."""
        if self.size is None:
            raise PlanRefused(
                f"privacy.mechanism {self.privacy.mechanism} is accounted for by the number of the model's parameters, "
                "which is not known before the clients described their columns; describe the features first"
            )
        return self.size

    def seeded(self, purpose: str, round_number: int) -> np.random.Generator | None:
        """What a simulation draws a round's noise with; None where it comes from the system's source."""
        if self.privacy.noise == "system":
            return None
        return generator(self.config.seed, purpose, self.run, round_number)


def from_seed(config: Config, purpose: str = "cohort") -> Chance:
    """Cohorts from the seed and the run's name: runs of one seed have cohorts of their own, and one for each `purpose`."""
    return lambda run, round_number: generator(config.seed, purpose, run, round_number)


def secret(config: Config, purpose: str = "cohort") -> Chance:
    """Cohorts that nobody can compute: amplification counts on it, and the seed stands in ``params.yaml``.

    A simulation draws from the seed and the run: two private runs of one seed must not share their
    cohorts, or their amplification would not compose.
    """
    if config.privacy.noise == "seeded":
        return from_seed(config, purpose)
    return lambda run, round_number: secret_generator()
