"""The mechanisms of central privacy: how each bounds an update, what it adds to the sum, what a round costs.

A mechanism is a function from the settings to `Parts`. Its noise is of deviation `Parts.deviation` at
the configured clip, in the unit of the updates; that number alone decides how much is added.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import floor, inf, log2, sqrt

from fedcore.errors import CorruptState, PlanRefused
from fedcore.privacy.events import (
    Covered,
    DiscreteGaussianSum,
    Event,
    FixedSizeSum,
    GaussianSum,
    LaplaceSum,
    MatrixSums,
    SkellamSum,
)
from fedcore.protection.setting import Setting
from fedcore.state import Mechanism
from fedcore.transforms.chain import chain
from fedcore.transforms.clip import clip
from fedcore.transforms.coins import Bits, Integers, seeded_bits, system_bits
from fedcore.transforms.discrete import discrete_gaussian, from_grid
from fedcore.transforms.grid import EXACT, on_grid, whole_steps
from fedcore.transforms.laplace import add_laplace, clip_l1, seeded_laplace, system_laplace
from fedcore.transforms.matrix import correlated
from fedcore.transforms.noise import Normal, seeded_normal, system_normal
from fedcore.transforms.skellam import skellam
from fedcore.types import Floats, Transform

_FINE = 20  # a clip is 2^20 to 2^21 steps of the discrete Gaussian's grid: no error of note
_SKELLAM = 13  # noise of 2^13 to 2^14 steps: its variance stays within what Skellam noise is drawn for


@dataclass(frozen=True)
class Parts:
    """What a mechanism makes: what the server enforces, how much noise of which kind, and a round's event.

    `add` None is independent Gaussian noise.
    """

    guard: Transform
    deviation: float
    event: Callable[[int], Event]
    add: Mechanism | None = None


def gaussian(setting: Setting) -> Parts:
    """Clip in L2, add Gaussian noise: the one mechanism that is accounted for every way to draw a cohort."""
    multiplier, cohort = setting.privacy.noise_multiplier, setting.config.cohort
    event: Event = GaussianSum(multiplier, setting.chosen.amplifies_at)
    if cohort.sampling == "uniform":
        event = FixedSizeSum(multiplier, cohort.size, len(setting.rows))
    guard = clip(setting.privacy.clip)
    return Parts(guard, multiplier * guard.bound(inf), lambda round_number: event)


def laplace(setting: Setting) -> Parts:
    """Clip in L1, add Laplace noise; `noise_multiplier` is its scale, √2 less than its deviation."""
    multiplier, limit = setting.privacy.noise_multiplier, setting.privacy.clip
    event = LaplaceSum(multiplier, setting.chosen.amplifies_at)

    def add(
        total: Floats, deviation: float, round_number: int, remembered: Mapping[str, Floats]
    ) -> tuple[Floats, Mapping[str, Floats]]:
        rng = setting.seeded("noise", round_number)
        source = system_laplace if rng is None else seeded_laplace(rng)
        return add_laplace(total, deviation / sqrt(2), source), {}

    return Parts(clip_l1(limit), sqrt(2) * multiplier * limit, lambda round_number: event, add)


def discrete(setting: Setting) -> Parts:
    """Clip, cut down to a grid, sum exactly, add discrete Gaussian noise on the grid: nothing is rounded after."""
    multiplier, limit = setting.privacy.noise_multiplier, setting.privacy.clip
    step = 2.0 ** (floor(log2(limit)) - _FINE)
    event = DiscreteGaussianSum(
        multiplier, setting.chosen.amplifies_at, multiplier * limit / step, setting.dimension
    )
    return Parts(
        chain(clip(limit), on_grid(step)),
        multiplier * limit,
        lambda round_number: event,
        _whole(setting, step, discrete_gaussian),
    )


def skellam_sum(setting: Setting) -> Parts:
    """The same with Skellam noise, on a coarser grid, as its variance is limited. No amplification is counted.

    An update of whole steps has no larger L1 norm than the square of its L2 norm.
    """
    multiplier, limit = setting.privacy.noise_multiplier, setting.privacy.clip
    step = 2.0 ** (floor(log2(multiplier * limit)) - _SKELLAM)
    steps = limit / step
    event = SkellamSum((multiplier * steps) ** 2, min(sqrt(setting.dimension) * steps, steps**2), steps)
    if len(setting.rows) * steps >= EXACT:
        raise PlanRefused(
            f"privacy.mechanism skellam with privacy.noise_multiplier {multiplier:g}: the grid for so little noise is too "
            "fine for an exact sum; raise privacy.noise_multiplier"
        )
    return Parts(
        chain(clip(limit), on_grid(step)),
        multiplier * limit,
        lambda round_number: event,
        _whole(setting, step, skellam),
    )


def matrix(setting: Setting) -> Parts:
    """Clip, add noise that later rounds partly take back: the whole run is one release, paid at its first round."""
    privacy, rounds = setting.privacy, setting.config.run.rounds
    noise = correlated(privacy.mechanism, rounds, privacy.bands)
    whole = MatrixSums(privacy.noise_multiplier, noise.sensitivity(noise.most), rounds)

    def event(round_number: int) -> Event:
        if round_number >= rounds:
            raise PlanRefused(
                f"round {round_number} with privacy.mechanism {privacy.mechanism}: its noise was made and paid for "
                f"{rounds} rounds; start another run with more run.rounds"
            )
        return Covered(0) if round_number else whole

    def add(
        total: Floats, deviation: float, round_number: int, remembered: Mapping[str, Floats]
    ) -> tuple[Floats, Mapping[str, Floats]]:
        memory = remembered.get("memory", noise.start(total.size))
        if round_number and memory.size and "memory" not in remembered:
            raise CorruptState(
                f"the noise of the rounds before round {round_number} is lost, and what is added now must build on "
                "it; restore the journal from a copy"
            )
        fresh = normal_of(setting, "noise")(round_number)(total.size)
        drawn, after = noise.step(round_number, fresh, memory)
        return total + deviation * drawn, {"memory": after} if after.size else {}

    return Parts(clip(privacy.clip), privacy.noise_multiplier * privacy.clip, event, add)


MECHANISMS: Mapping[str, Callable[[Setting], Parts]] = {
    "gaussian": gaussian,
    "discrete_gaussian": discrete,
    "laplace": laplace,
    "skellam": skellam_sum,
    "tree": matrix,
    "banded": matrix,
}


def normal_of(setting: Setting, purpose: str) -> Callable[[int], Normal]:
    """Where a round's normal numbers come from: the system, or in a simulation the seed."""

    def normal(round_number: int) -> Normal:
        rng = setting.seeded(purpose, round_number)
        return system_normal if rng is None else seeded_normal(rng)

    return normal


def _whole(setting: Setting, step: float, draw: Callable[[int, Fraction, Bits], Integers]) -> Mechanism:
    """Noise in whole steps on a sum of multiples of `step`.

    `draw` gets the size, the variance in square steps and the source of bits.
    """

    def add(
        total: Floats, deviation: float, round_number: int, remembered: Mapping[str, Floats]
    ) -> tuple[Floats, Mapping[str, Floats]]:
        rng = setting.seeded("noise", round_number)
        bits = system_bits if rng is None else seeded_bits(rng)
        noise = draw(total.size, Fraction(deviation / step) ** 2, bits)
        return from_grid(whole_steps(total, step) + noise, step), {}

    return add
