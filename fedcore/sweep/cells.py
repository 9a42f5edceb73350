"""The cells of a sweep: ε × seed and, for comparison, no privacy × seed. Each is a run of its own.

Whose budget a cell spends depends on its noise. ``privacy.noise: seeded`` is a simulation: every
cell has an account of its own, named after it, because nothing is released. ``system`` noise is a
release: all cells draw on the one account of the population, whose limit stays ``privacy.epsilon``,
and a cell that it cannot pay is refused. A cell that was trained is not trained again.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fedcore.config import Config, config_tree
from fedcore.errors import BadConfig, BadInput, BudgetSpent
from fedcore.types import canonical_json

_METRICS = ("auc", "accuracy", "r2")  # of these, the first that the task has
_UNDER_NOISE = ("accuracy",)  # of these, what clients tell under noise
_ALL = "all rounds done"


@dataclass(frozen=True)
class Cell:
    """One training: `epsilon` is its target, None without privacy; `noise` the multiplier for it."""

    epsilon: float | None
    seed: int
    noise: float | None = None

    @property
    def label(self) -> str:
        """The cell in a word: ``eps1-s2``, ``plain-s2``."""
        return f"{'plain' if self.epsilon is None else f'eps{self.epsilon:g}'}-s{self.seed}"


@dataclass(frozen=True)
class Done:
    """What a cell came to; `refused` says why it has no score."""

    cell: Cell
    run: str
    metric: str = ""
    score: float | None = None
    spent: float | None = None
    mlflow: str | None = None
    refused: str | None = None


@dataclass(frozen=True)
class Asked:
    """A sweep: the parameters all cells start from, the targets, how many seeds."""

    config: Config
    epsilons: Sequence[float]
    seeds: int = 3

    def check(self) -> None:
        """Raise `BadInput` for what cannot be asked for."""
        if self.seeds < 1:
            raise BadInput(f"seeds must be 1 or more, got {self.seeds}; three show the spread")
        if not self.epsilons:
            raise BadInput("no ε is named; write for example --epsilons 1,2,4,8")
        wrong = [value for value in self.epsilons if not value > 0]
        if wrong:
            raise BadInput(
                f"ε must be above zero, got {wrong[0]:g}; leave it out, the line without privacy is drawn anyway"
            )
        if self.config.privacy.mode == "none":
            raise BadConfig(
                "privacy.mode", "none", "a sweep over ε needs a mode that ε is counted in, such as central"
            )
        if self.config.privacy.evaluation == "off":
            raise BadConfig(
                "privacy.evaluation", "off", "leaves nothing to compare the cells by; use clear for a sweep"
            )
        if self.config.privacy.evaluation == "noised" and self.config.data.task == "regression":
            raise BadConfig("privacy.evaluation", "noised", "leaves no r2 to compare the cells by; use clear")

    def cells(self, noise: Callable[[Config, float], float]) -> list[Cell]:
        """All cells, those of one ε together, the ones without privacy first. Raises `BadInput`."""
        self.check()
        targets = sorted(dict.fromkeys(self.epsilons))
        found = {target: noise(self.config, target) for target in targets}
        seeds = range(self.config.seed, self.config.seed + self.seeds)
        plain = [Cell(None, seed) for seed in seeds]
        return plain + [Cell(target, seed, found[target]) for target in targets for seed in seeds]


def cell_config(base: Config, cell: Cell) -> Config:
    """The parameters of a cell, its account among them."""
    config = replace(base, seed=cell.seed)
    if cell.epsilon is None or cell.noise is None:
        return replace(config, privacy=replace(base.privacy, mode="none", evaluation="clear"))
    privacy = replace(base.privacy, noise_multiplier=cell.noise)
    if privacy.noise == "seeded":
        population = f"{privacy.population or base.data.name}-sweep-{cell.label}"
        privacy = replace(privacy, epsilon=cell.epsilon, population=population)
    return replace(config, privacy=privacy)


def fill(
    asked: Asked,
    cells: Sequence[Cell],
    workdir: Path,
    heard: Callable[[Done], None] = lambda done: None,
) -> list[Done]:
    """Every cell's outcome, trained where it is not yet; each is told as soon as it is known.

    Raises what `fedcore.coordinator.simulate` raises, but for a spent budget.
    """
    found = []
    for cell in cells:
        noised = asked.config.privacy.evaluation == "noised"
        done = _train(cell, cell_config(asked.config, cell), workdir, _UNDER_NOISE if noised else _METRICS)
        heard(done)
        found.append(done)
    return found


def run_name(config: Config, cell: Cell) -> str:
    """A cell's run: equal for equal settings, so that an interrupted sweep goes on."""
    tree = config_tree(config)
    tree = {name: part for name, part in tree.items() if name not in ("tracking", "store")}
    digest = hashlib.sha256(canonical_json(tree).encode()).hexdigest()[:8]
    return f"sweep-{cell.label}-{digest}"


def _train(cell: Cell, config: Config, workdir: Path, metrics: Sequence[str]) -> Done:
    from fedcore.coordinator import simulate

    name = run_name(config, cell)
    try:
        result = simulate(config, workdir, name)
    except BudgetSpent as error:
        return Done(cell, name, refused=str(error))
    metric = next((known for known in metrics if known in result.metrics), "")
    if result.stopped != _ALL or not metric:
        why = result.stopped if result.stopped != _ALL else "no client reported a metric"
        return Done(cell, name, metric, None, result.epsilon, result.mlflow_run, why)
    return Done(cell, name, metric, result.metrics[metric], result.epsilon, result.mlflow_run)
