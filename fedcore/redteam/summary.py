"""From cells to what is to be known: means over seeds, each rule's worst case, its pace, and the ranking."""

import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import NamedTuple, TypeVar

from fedcore.redteam.kept import Record
from fedcore.redteam.matrix import NONE
from fedcore.types import Json

SHARE = 0.95  # of the honest mean's score: what a rule should reach, and how soon
SLOWER = 1.2  # times the honest mean's rounds: what still counts as in pace


class Panel(NamedTuple):
    """One setting and variant, means over seeds: the score of each (rule, attack), and how far the
    backdoor works by rule, which a score does not show; why a rule has neither; and under which
    attacks all rounds were refused, because those left after admission were too few for the rule's bound.
    """

    setting: str
    variant: str
    scores: dict[tuple[str, str], float]
    implanted: dict[str, float]
    skipped: dict[str, str]
    refused: frozenset[tuple[str, str]] = frozenset()

    def of(self, rule: str) -> dict[str, float]:
        """The rule's scores by attack, without the honest one and those under which it refused rounds."""
        return {
            a: s
            for (r, a), s in self.scores.items()
            if r == rule and (r, a) not in self.refused | {(r, NONE)}
        }


class Pace(NamedTuple):
    """A rule in one setting: under how many attacks it was in pace, of how many; the slowest ratio, None for never."""

    setting: str
    rule: str
    within: int
    attacks: int
    slowest: float | None


class Standing(NamedTuple):
    """A rule over all panels that it was not skipped in: means of its worst case, of its mean, of no attack.

    `implanted` is how far the backdoor works, None where that attack was not asked for; `refused`
    are the attacks under which it refused rounds in some panel: nothing broke there, nothing was
    learned either, and the other numbers leave them out.
    """

    rule: str
    worst: float
    mean: float
    honest: float
    implanted: float | None
    panels: int
    refused: tuple[str, ...] = ()


def panels(records: Sequence[Record]) -> list[Panel]:
    """The panels in the order of the records."""
    cells: dict[tuple[str, str], dict[tuple[str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    implanted: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    skipped: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    refused: dict[tuple[str, str], set[tuple[str, str]]] = defaultdict(set)
    for record in records:
        cell = record.cell
        place = cells[cell.setting, cell.variant]
        if record.score is None:
            skipped[cell.setting, cell.variant][cell.rule] = record.numbers["skipped"]
        else:
            place[cell.rule, cell.attack].append(record.score)
        if record.numbers.get("stopped") and len(set(record.numbers["scores"])) == 1:  # the model never moved
            refused[cell.setting, cell.variant].add((cell.rule, cell.attack))
        if record.numbers.get("implanted") is not None:
            implanted[cell.setting, cell.variant][cell.rule].append(record.numbers["implanted"])
    return [
        Panel(*where, _means(place), _means(implanted[where]), skipped[where], frozenset(refused[where]))
        for where, place in cells.items()
    ]


_Key = TypeVar("_Key", str, tuple[str, str])


def _means(values: Mapping[_Key, Sequence[float]]) -> dict[_Key, float]:
    return {key: fmean(found) for key, found in values.items()}


def ranking(found: Sequence[Panel]) -> list[Standing]:
    """Rules from the best worst case to the worst, by its mean over panels; rules of fewer panels last."""
    rules = dict.fromkeys(rule for panel in found for rule, _ in panel.scores)
    standings = [_standing(rule, [panel for panel in found if panel.of(rule)]) for rule in rules]
    return sorted(
        (s for s in standings if s.panels), key=lambda s: (-s.panels, -round(s.worst, 6), -s.mean, s.rule)
    )


def _standing(rule: str, found: Sequence[Panel]) -> Standing:
    if not found:
        return Standing(rule, 0.0, 0.0, 0.0, None, 0)
    worst = fmean(min(panel.of(rule).values()) for panel in found)
    mean = fmean(fmean(panel.of(rule).values()) for panel in found)
    honest = fmean(panel.scores[rule, NONE] for panel in found)
    works = [panel.implanted[rule] for panel in found if rule in panel.implanted]
    refused = sorted({attack for panel in found for r, attack in panel.refused if r == rule})
    return Standing(rule, worst, mean, honest, fmean(works) if works else None, len(found), tuple(refused))


def paces(records: Sequence[Record], share: float = SHARE) -> list[dict[str, Json]]:
    """Per setting, rule and attack: rounds to `share` of the honest mean's score over the honest mean's rounds.

    The plain variant; means over seeds of rounds; None where a seed never got there.
    """
    honest = {
        (r.cell.setting, r.cell.seed): r.numbers["scores"]
        for r in records
        if (r.cell.variant, r.cell.rule, r.cell.attack) == ("plain", "mean", NONE)
    }
    rounds: dict[tuple[str, str, str], list[tuple[int | None, int]]] = defaultdict(list)
    for record in records:
        cell, curve = record.cell, honest.get((record.cell.setting, record.cell.seed))
        if cell.variant != "plain" or record.score is None or curve is None:
            continue
        target = share * curve[-1]
        own, least = _rounds(record.numbers["scores"], target), _rounds(curve, target)
        rounds[cell.setting, cell.rule, cell.attack].append((own, least or 1))
    return [
        {"setting": setting, "rule": rule, "attack": attack, "ratio": _ratio(pairs)}
        for (setting, rule, attack), pairs in rounds.items()
    ]


def in_pace(records: Sequence[Record], share: float = SHARE) -> list[Pace]:
    """Each rule's pace in each setting over all attacks: see `paces`."""
    ratios: dict[tuple[str, str], list[float | None]] = defaultdict(list)
    for found in paces(records, share):
        if found["attack"] != NONE:
            ratios[found["setting"], found["rule"]].append(found["ratio"])
    return [
        Pace(*where, sum(r is not None and r <= SLOWER for r in given), len(given), _slowest(given))
        for where, given in ratios.items()
    ]


def _slowest(ratios: Sequence[float | None]) -> float | None:
    known = [ratio for ratio in ratios if ratio is not None]
    return max(known) if len(known) == len(ratios) else None


def _rounds(scores: Sequence[float], target: float) -> int | None:
    return next((number for number, score in enumerate(scores[1:], 1) if score >= target), None)


def _ratio(pairs: Sequence[tuple[int | None, int]]) -> float | None:
    took = [own for own, _ in pairs if own is not None]
    if len(took) < len(pairs):
        return None
    return sum(took) / sum(least for _, least in pairs)


def as_csv(records: Sequence[Record]) -> str:
    """One line a cell: its names, score, who was removed, how far a backdoor works, why it has no number."""
    names = ("score", "caught", "wronged", "implanted", "stopped", "skipped", "seconds")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["setting", "variant", "rule", "attack", "seed", *names])
    for record in records:
        numbers = {**record.numbers, "score": record.score}
        writer.writerow([*asdict(record.cell).values(), *(numbers.get(name) for name in names)])
    return text.getvalue()


def as_json(records: Sequence[Record]) -> dict[str, Json]:
    """Panels, ranking and paces as JSON values."""
    found = panels(records)
    return {
        "ranking": [standing._asdict() for standing in ranking(found)],
        "panels": [
            {
                "setting": panel.setting,
                "variant": panel.variant,
                "scores": [{"rule": r, "attack": a, "score": s} for (r, a), s in panel.scores.items()],
                "implanted": panel.implanted,
                "skipped": panel.skipped,
                "refused": [{"rule": r, "attack": a} for r, a in sorted(panel.refused)],
            }
            for panel in found
        ],
        "in_pace": [pace._asdict() for pace in in_pace(records)],
        "paces": {f"{share:g}": paces(records, share) for share in (SHARE, 0.99)},
    }
