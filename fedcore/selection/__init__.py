"""Who is asked in a round: pure functions of the clients, the server's randomness and what a turn shows.

Each says whether the privacy accountant may count its randomness as amplification. By chance or turn
alone: `plain.py`. By rows, participation or availability: `informed.py`. By utility: `oort.py`.
"""

from collections.abc import Callable, Mapping

from fedcore.config import Config
from fedcore.selection.draw import Draw, Population, Selection, Turn
from fedcore.selection.informed import available, fair, quality
from fedcore.selection.oort import oort
from fedcore.selection.plain import cyclic, everyone, group_of, poisson, turns, uniform

__all__ = ["SELECTIONS", "Draw", "Population", "Selection", "Turn", "group_of", "selection"]

SELECTIONS: Mapping[str, Callable[[Config, Population], Selection]] = {
    "all": everyone,
    "uniform": uniform,
    "poisson": poisson,
    "cyclic": cyclic,
    "turns": turns,
    "quality": quality,
    "fair": fair,
    "available": available,
    "oort": oort,
}
NOBODY = Population()


def selection(config: Config, population: Population = NOBODY) -> Selection:
    """The selection that `config` names, among `population`; without one it can say what it is, and draw nobody."""
    return SELECTIONS[config.cohort.sampling](config, population)
