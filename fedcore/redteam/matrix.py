"""The robustness matrix: rule × attack × variant × setting × seed, each cell one training under attack.

What is asked for is checked here, before anything trains. Finished cells are kept by `kept.py`.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fedcore.config import Config, config_tree
from fedcore.errors import BadInput, PlanRefused, TooFewClients
from fedcore.redteam.attacks import ATTACKS, HONEST, attack
from fedcore.redteam.trial import Arena, Trial, open_arena, run_trial
from fedcore.redteam.variants import through, variant
from fedcore.rules import mixer, rule
from fedcore.rules.decide import accepted_options
from fedcore.types import Json, canonical_json

NONE = "none"  # the liars do as everybody does
RULES = (
    "mean",
    "median",
    "trimmed_mean",
    "krum",
    "multi_krum",
    "geometric_median",
    "centered_clipping",
    "nnm+trimmed_mean",
    "nnm+multi_krum",
)
SETTINGS = ("10/3:iid", "10/3:dirichlet", "25/5:iid", "25/5:dirichlet")
# Options a rule cannot do without, where the parameters name another rule. A radius is in units of
# an update's length, which on digits is 1 to 3.
OPTIONS: Mapping[str, Mapping[str, float]] = {
    "centered_clipping": {"radius": 1.0},
    "static_clip": {"radius": 1.0},
    "bucketing": {"size": 2},
}
_SETTING = re.compile(r"(\d+)/(\d+):(iid|dirichlet|labels|quantity|natural)(?:=(\d+(?:\.\d+)?))?")
_DECIDES = ("seed", "data", "model", "local", "cohort", "combine", "server", "privacy", "evaluate")


@dataclass(frozen=True)
class Setting:
    """How many clients, how many of them lie, and how rows are spread over them."""

    clients: int
    liars: int
    scheme: str
    alpha: float = 0.3

    @classmethod
    def parse(cls, text: str) -> "Setting":
        """From ``CLIENTS/LIARS:SCHEME`` or ``…:SCHEME=ALPHA``. Raises `BadInput`."""
        found = _SETTING.fullmatch(text.strip())
        if found is None:
            raise BadInput(f"setting {text!r} is not CLIENTS/LIARS:SCHEME; write for example 10/3:iid")
        clients, liars = int(found[1]), int(found[2])
        if 2 * liars >= clients:
            raise BadInput(
                f"setting {text}: no rule survives {liars} liars among {clients} clients; less than half may lie"
            )
        alpha = float(found[4] or 0.3)
        if not alpha:
            raise BadInput(f"setting {text}: alpha must be above zero; write for example dirichlet=0.3")
        return cls(clients, liars, found[3], alpha)

    def __str__(self) -> str:
        alpha = f"={self.alpha:g}" if self.scheme == "dirichlet" and self.alpha != 0.3 else ""
        return f"{self.clients}/{self.liars}:{self.scheme}{alpha}"


@dataclass(frozen=True)
class Cell:
    """One training of the matrix."""

    setting: str
    variant: str
    rule: str
    attack: str
    seed: int


@dataclass(frozen=True)
class Asked:
    """A matrix: the parameters all cells start from, and the names of its sides."""

    config: Config
    rules: Sequence[str] = RULES
    attacks: Sequence[str] = tuple(ATTACKS)
    variants: Sequence[str] = ("plain",)
    settings: Sequence[str] = SETTINGS
    seeds: int = 3

    @property
    def title(self) -> str:
        """What the picture says over its panels."""
        mean = f"mean of {self.seeds} seeds" if self.seeds > 1 else "one seed"
        return f"{self.config.data.name}: accuracy in % after {self.config.run.rounds} rounds under attack, {mean}"

    def cells(self) -> list[Cell]:
        """All cells, those of one setting and seed together. Raises `BadInput` for what cannot be asked for."""
        self._check()
        attacks = list(dict.fromkeys((NONE, *self.attacks)))
        rules = list(dict.fromkeys(("mean", *self.rules)))  # the honest mean is what all is compared with
        return [
            Cell(str(Setting.parse(setting)), variant_name, rule_name, attack_name, seed)
            for setting in self.settings
            for seed in range(1, self.seeds + 1)
            for variant_name in self.variants
            for rule_name in rules
            for attack_name in attacks
            if rule_name in self.rules or attack_name == NONE
        ]

    def _check(self) -> None:
        if self.seeds < 1:
            raise BadInput(f"seeds must be 1 or more, got {self.seeds}; three show the spread")
        for name, given in (("rules", self.rules), ("settings", self.settings), ("variants", self.variants)):
            if not given:
                raise BadInput(f"no {name} are named; leave the option out for all of them")
        for rule_name in self.rules:
            *mixers, last = rule_name.split("+")
            rule(last)
            for name in mixers:
                mixer(name)
        for name in self.attacks:
            attack(name) if name != NONE else None
        for name in self.variants:
            variant(name)
        for text in self.settings:
            Setting.parse(text)


def cell_config(base: Config, cell: Cell) -> Config:
    """The parameters of a cell: its data, its rule with as many liars as there are, its variant."""
    setting = Setting.parse(cell.setting)
    drawn = {"scheme": setting.scheme, "clients": setting.clients, "alpha": setting.alpha}
    partition = replace(base.data.partition, **drawn)  # type: ignore[arg-type]
    config = replace(base, seed=cell.seed, data=replace(base.data, partition=partition))
    return variant(cell.variant).server(with_rule(config, cell.rule, setting.liars))


def with_rule(config: Config, name: str, liars: int) -> Config:
    """`config` with the aggregation ``MIXER+…+RULE`` against `liars`."""
    *mixers, last = name.split("+")
    takes_f = any("f" in accepted_options(function) for function in (rule(last), *map(mixer, mixers)))
    own = last == config.combine.rule
    combine = replace(
        config.combine,
        rule=last,
        f=liars if takes_f else None,
        mixers=tuple(mixers),
        options=config.combine.options if own else dict(OPTIONS.get(last, {})),
        mixer_options={
            name: {**OPTIONS.get(name, {}), **config.combine.mixer_options.get(name, {})} for name in mixers
        },
    )
    return replace(config, combine=combine)


def key_of(base: Config, cell: Cell) -> str:
    """What a kept cell is known by: everything that decides its numbers."""
    tree = config_tree(cell_config(base, cell))
    decides: dict[str, Any] = {name: tree[name] for name in _DECIDES}
    text = canonical_json({**decides, "rounds": base.run.rounds, "cell": asdict(cell)})
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def arena_of(base: Config, cell: Cell, workdir: Path) -> Arena:
    """The clients of a cell's setting and seed; their data are prepared under `workdir` once."""
    setting = Setting.parse(cell.setting)
    plain = Cell(cell.setting, "plain", "mean", NONE, cell.seed)
    return open_arena(cell_config(base, plain), workdir, setting.liars)


def play(base: Config, cell: Cell, arena: Arena) -> dict[str, Json]:
    """The cell's numbers: see `Trial`; or ``skipped``, why its rule cannot be asked that."""
    config = cell_config(base, cell)
    chosen = HONEST if cell.attack == NONE else attack(cell.attack)
    wrapped = through(cell.variant, config, len(arena.fleet.clients))
    try:
        return _numbers(run_trial(arena, config, chosen, wrapped))
    except (TooFewClients, PlanRefused) as error:
        return {"skipped": str(error)}


def _numbers(trial: Trial) -> dict[str, Json]:
    return {
        "scores": [round(score, 6) for score in trial.scores],
        "caught": trial.caught,
        "wronged": trial.wronged,
        "implanted": trial.implanted,
        "stopped": trial.stopped,
        "seconds": round(trial.seconds, 3),
    }
