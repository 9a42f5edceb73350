"""From names and options to a vector, and to what must be known afterwards: who was kept, and the state.

An `Aggregation` is mixers and a rule with every name and option checked, once. Called, it gives a
`Decision`: the vector, how much of each row is in it, notes, and the rule's state for next time.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, signature
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from fedcore.errors import BadInput, UnknownName
from fedcore.rules import centres, coordinate, heuristics, mixers, neighbours
from fedcore.rules.blocks import checked
from fedcore.rules.geometry import Geometry, Shares, added, geometry, rows_of
from fedcore.rules.mean import mean
from fedcore.types import Floats, Json, Rule, Updates, Vector, Weights

Options = Mapping[str, Any]
NONE: Options = MappingProxyType({})


class Decision(NamedTuple):
    """A combined update (d,), each row's part in it from 0 (dropped) to 1 (n,), notes, and the rule's state."""

    vector: Vector
    kept: Floats
    notes: Mapping[str, Json]
    state: Mapping[str, Vector]


class Entry(NamedTuple):
    """A rule in parts: the function, what decides, and how many rows it needs for given options."""

    combine: Rule
    ranks: Callable[..., coordinate.Ranks] | None = None  # each coordinate by itself
    shares: Callable[..., Shares] | None = None  # whole rows
    least: Callable[[Options], int] = lambda options: 2 * options.get("f", 0) + 1
    heuristic: bool = False


def _krum_least(options: Options) -> int:
    return neighbours.krum_least(options["f"], options.get("neighbours"))


ENTRIES: Mapping[str, Entry] = {
    "mean": Entry(mean, least=lambda options: 1),
    "median": Entry(coordinate.median, ranks=coordinate.median_ranks),
    "trimmed_mean": Entry(coordinate.trimmed_mean, ranks=coordinate.trimmed_ranks),
    "meamed": Entry(coordinate.meamed, ranks=coordinate.meamed_ranks),
    "krum": Entry(neighbours.krum, shares=neighbours.krum_shares, least=_krum_least),
    "multi_krum": Entry(neighbours.multi_krum, shares=neighbours.multi_krum_shares, least=_krum_least),
    "mda": Entry(neighbours.mda, shares=neighbours.mda_shares),
    "bulyan": Entry(neighbours.bulyan, least=lambda options: 4 * options["f"] + 3),
    "geometric_median": Entry(centres.geometric_median, shares=centres.median_shares),
    "centered_clipping": Entry(centres.centered_clipping, shares=centres.clipping_shares),
    "foolsgold": Entry(heuristics.foolsgold, shares=heuristics.foolsgold_shares, heuristic=True),
    "fltrust": Entry(heuristics.fltrust, shares=heuristics.fltrust_shares, heuristic=True),
    "flame": Entry(heuristics.flame, shares=heuristics.flame_shares, heuristic=True),
}
RULES: Mapping[str, Rule] = MappingProxyType({name: entry.combine for name, entry in ENTRIES.items()})
MIXERS: Mapping[str, Callable[..., Updates]] = MappingProxyType(
    {
        "nnm": mixers.nnm,
        "bucketing": mixers.bucketing,
        "static_clip": mixers.static_clip,
        "arc": mixers.arc,
    }
)
MIXINGS: Mapping[str, Callable[..., Floats]] = MappingProxyType(
    {
        "nnm": mixers.nnm_mixing,
        "bucketing": mixers.bucketing_mixing,
        "static_clip": mixers.static_clip_mixing,
        "arc": mixers.arc_mixing,
    }
)
_GIVEN = ("rng", "start")  # what the round supplies, not a person


def rule(name: str) -> Rule:
    """The rule of that name. Raises `UnknownName` with the known ones."""
    if name not in RULES:
        raise UnknownName("rule", name, RULES)
    return RULES[name]


def mixer(name: str) -> Callable[..., Updates]:
    """The mixer of that name. Raises `UnknownName` with the known ones."""
    if name not in MIXERS:
        raise UnknownName("mixer", name, MIXERS)
    return MIXERS[name]


@dataclass(frozen=True)
class Aggregation:
    """Mixers, in order, and a rule; every option checked. Made by `aggregation`."""

    name: str
    options: Options
    mixers: tuple[tuple[str, Options], ...] = ()

    @property
    def sums(self) -> bool:
        """Whether a sum of updates is all it needs, as secure aggregation and central noise give it."""
        return self.name == "mean" and not self.mixers

    @property
    def heuristic(self) -> bool:
        """Whether adaptive attacks on the rule are known."""
        return ENTRIES[self.name].heuristic

    @property
    def least(self) -> int:
        """The fewest clients it can combine."""
        needed = ENTRIES[self.name].least(self.options)
        for name, options in reversed(self.mixers):
            needed = (needed - 1) * options["size"] + 1 if name == "bucketing" else needed
        return int(max([needed, *(2 * options.get("f", 0) + 1 for _, options in self.mixers)]))

    def initial(self, model: Vector) -> dict[str, Vector]:
        """The rule's state before the first round."""
        return {"start": np.zeros_like(model)} if self.name == "centered_clipping" else {}

    def __call__(
        self,
        updates: Updates,
        weights: Weights,
        state: Mapping[str, Vector] = NONE,
        rng: np.random.Generator | None = None,
    ) -> Decision:
        """Combine the rows of `updates`. Raises `TooFewClients` below the bound, `BadInput` for bad rows."""
        updates = checked(updates, weights)
        ranks = ENTRIES[self.name].ranks
        if self.sums:
            return Decision(mean(updates, weights), np.ones(len(updates)), {}, {})
        if ranks and not self.mixers:
            return self._by_ranks(updates, ranks(len(updates), **self.options), None)
        extras = self._extras(updates, state)
        if self.name == "centered_clipping" and not self.mixers and self.options.get("iterations", 1) == 1:
            vector, shares = centres.clipped_once(updates, extras[0], **self.options)
            return Decision(vector, _part(shares.rows), shares.notes, {"start": vector})
        few = {"few": 0} if self.name == "geometric_median" else {}  # it starts at the median of all
        known = self._mixed(geometry(updates, extras, **few), rng)
        if ranks:
            return self._by_ranks(updates, ranks(len(known), **self.options), known)
        if self.name == "bulyan":
            known, chosen = neighbours.bulyan_choice(known, **self.options)
            return self._by_ranks(updates, chosen, known)
        shares_of = ENTRIES[self.name].shares or _mean_shares
        return self._by_shares(updates, known, shares_of(known, **self._own(shares_of)), extras, rng)

    def _by_ranks(self, updates: Updates, ranks: coordinate.Ranks, known: Geometry | None) -> Decision:
        rows = None if known is None else rows_of(known)
        vector = coordinate.combined(updates, ranks, rows)
        kept = coordinate.survival(updates, ranks, 0 if ranks.nearest else self.options.get("f", 0), rows)
        if known is not None:
            kept = _part(np.abs(known.back(Shares(kept))[0]))
        return Decision(vector, kept, {}, {})

    def _by_shares(
        self,
        updates: Updates,
        known: Geometry,
        shares: Shares,
        extras: Sequence[Vector],
        rng: np.random.Generator | None,
    ) -> Decision:
        vector = added(updates, known, shares, extras)
        if shares.noise:
            vector = heuristics.with_noise(vector, shares, _needed(rng))
        state = {"start": vector} if self.name == "centered_clipping" else {}
        return Decision(vector, _part(np.abs(known.back(shares)[0])), shares.notes, state)

    def _own(self, function: Callable[..., Any]) -> Options:
        """The options that `function` takes."""
        return {key: value for key, value in self.options.items() if key in signature(function).parameters}

    def _extras(self, updates: Updates, state: Mapping[str, Vector]) -> list[Vector]:
        if self.name == "centered_clipping":
            return [state["start"] if "start" in state else updates[0] * 0]
        return [self.options["root"]] if "root" in self.options else []

    def _mixed(self, known: Geometry, rng: np.random.Generator | None) -> Geometry:
        for name, options in self.mixers:
            drawn = {"rng": _needed(rng)} if name == "bucketing" else {}
            known = known.mixed(MIXINGS[name](known, **options, **drawn))
        return known


def aggregation(
    name: str, options: Options = NONE, mixers: Sequence[tuple[str, Options]] = ()
) -> Aggregation:
    """Mixers and a rule by name. Raises `UnknownName`, and `BadInput` for an option not known or missing."""
    _check_options(f"rule {name}", rule(name), options)
    for mixer_name, mixer_options in mixers:
        _check_options(f"mixer {mixer_name}", mixer(mixer_name), mixer_options)
    return Aggregation(name, dict(options), tuple((chosen, dict(given)) for chosen, given in mixers))


def decide(
    name: str,
    updates: Updates,
    weights: Weights,
    options: Options = NONE,
    *,
    mixers: Sequence[tuple[str, Options]] = (),
    state: Mapping[str, Vector] = NONE,
    rng: np.random.Generator | None = None,
) -> Decision:
    """What the rule `name` makes of `updates` after `mixers`, and who is in it: `Aggregation` in one call."""
    return aggregation(name, options, mixers)(updates, weights, state, rng)


def accepted_options(function: Callable[..., Any]) -> dict[str, bool]:
    """The options that a person may set, and whether they must."""
    return {
        name: parameter.default is Parameter.empty
        for name, parameter in signature(function).parameters.items()
        if parameter.kind is Parameter.KEYWORD_ONLY and name not in _GIVEN
    }


def _check_options(what: str, function: Callable[..., Any], options: Options) -> None:
    accepted = accepted_options(function)
    for name in options:
        if name not in accepted:
            raise UnknownName(f"option of {what}", name, accepted)
    for name, required in accepted.items():
        if required and name not in options:
            raise BadInput(f"{what} needs the option {name}; set it under combine in params.yaml")
    for name, value in options.items():
        if np.ndim(value) == 0:
            _check_number(name, value, whole="int" in str(signature(function).parameters[name].annotation))


def _check_number(name: str, value: Any, whole: bool) -> None:
    """Raise `BadInput` unless `value` is a finite number above zero (f and noise: or zero), whole if it counts."""
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool) and np.isfinite(value)
    low = 0 if name in {"f", "noise"} else np.nextafter(0.0, 1.0)
    if not number or value < low or (whole and value != int(value)):
        kind = "a whole number" if whole else "finite"
        limit = "0 or more" if not low else "above zero"
        raise BadInput(
            f"{name} must be {kind} and {limit}, got {value!r}; change it under combine in params.yaml"
        )


def _mean_shares(known: Geometry) -> Shares:
    """The mean of mixed rows, all alike."""
    return Shares(np.ones(len(known)))


def _part(shares: Floats) -> Floats:
    return shares / (shares.max() or 1.0)


def _needed(rng: np.random.Generator | None) -> np.random.Generator:
    if rng is None:
        raise BadInput("this aggregation draws at random and was given no generator; pass rng")
    return rng
