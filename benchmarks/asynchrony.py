#!/usr/bin/env python
"""What not waiting gains, and what staleness costs: synchronous rounds beside FedBuff on the virtual clock.

    FEDCORE_DATA=DATA python benchmarks/asynchrony.py --json async.json --picture docs/img/async.png

``flare``: 16 devices that need 100, 200 or 400 s, as NVIDIA FLARE simulates them. ``writers``: 539 writers of MNIST
whose training takes half-normal times, 100 at work at once: rounds that ask 1.3 times as many as they wait for, and
FedBuff with 10 updates a version (Nguyen et al. 2022, arXiv:2106.06639). ``diverge``: the same writers, 250 at work, 5
updates a version, so that updates are some fifty versions old: with weights of staleness, with constant ones, and with
constant ones where older updates are refused. Every run goes through `fedcore.coordinator.simulate`. Runs of a
demonstration are judged after about as many updates each; what counts is the virtual time at which an accuracy was
first seen to be reached.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from fedcore.config import Config, load_config
from fedcore.coordinator import simulate
from fedcore.data.prepare import prepare
from fedcore.errors import Diverged
from fedcore.types import RoundRecord

HERE = Path(__file__).resolve().parent
COLORS = ("#a9b4bd", "#1f4e79", "#b5483a", "#d99a2b")
OPEN = ("tracking.enabled=false", "time.mode=virtual", "local.momentum=0", "local.epochs=1")
FLARE = (
    "local.epochs=2",
    "data.partition.clients=16",
    "data.partition.min_rows=10",
    "checks.min_rows=10",
    "time.classes=[{name: fast, delay_s: 100}, {name: middle, delay_s: 200}, {name: slow, delay_s: 400}]",
    "time.jitter=0.01",
)
WRITERS = (
    "data.name=mnist-by-writer",
    "data.partition.scheme=natural",
    "checks.min_rows=10",
    "model.hidden=[64]",
    "local.lr=0.3",
    "time.classes=[{name: phone, delay_s: 60}]",
    "time.jitter=1",
    "time.jitter_law=half_normal",
    "evaluate.rollback_factor=1e9",  # a rollback would hide that training diverges
)
ROUNDS = ("cohort.sampling=uniform", "cohort.size=77", "cohort.over_select=1.3")
STALE = ("asynchrony.concurrency=250", "asynchrony.buffer=5", "asynchrony.max_staleness=null")


@dataclass(frozen=True)
class Demo:
    """Runs on the same data: `arms` are rounds, rounds between evaluations, and settings of their own."""

    title: str
    target: float
    settings: tuple[str, ...]
    arms: Mapping[str, tuple[int, int, tuple[str, ...]]]


def fedbuff(*settings: str) -> tuple[str, ...]:
    return ("asynchrony.mode=fedbuff", *settings)


DEMOS = {
    "flare": Demo(
        "16 devices of 100, 200 and 400 s",
        0.9,
        FLARE,
        {
            "synchronous": (16, 1, ()),
            "FedBuff, K = 4": (48, 4, fedbuff("asynchrony.buffer=4")),
        },
    ),
    "writers": Demo(
        "539 writers, 100 at work",
        0.9,
        WRITERS,
        {
            "synchronous, 1.3 times asked": (20, 1, ROUNDS),
            "FedBuff, K = 10": (80, 8, fedbuff("asynchrony.concurrency=100", "asynchrony.buffer=10")),
        },
    ),
    "diverge": Demo(
        "250 at work, K = 5",
        0.88,
        WRITERS,
        {
            "synchronous, 77 of 100": (20, 1, ROUNDS),
            "FedBuff, (1 + τ)^-1/2": (160, 16, fedbuff(*STALE)),
            "FedBuff, constant weight": (160, 16, fedbuff(*STALE, "asynchrony.weight=constant")),
            "the same, none over 20 versions old": (
                160,
                16,
                fedbuff(*STALE, "asynchrony.weight=constant", "asynchrony.max_staleness=20"),
            ),
        },
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--demos", nargs="+", default=list(DEMOS), choices=list(DEMOS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--quick", action="store_true", help="the first seed alone")
    parser.add_argument("--json", type=Path, help="write what was seen there, after each run")
    parser.add_argument("--picture", type=Path, help="draw it there")
    asked = parser.parse_args()
    seeds = asked.seeds[:1] if asked.quick else asked.seeds
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        for name in asked.demos:
            found[name] = {arm: [] for arm in DEMOS[name].arms}
            for seed in seeds:
                for arm in DEMOS[name].arms:
                    found[name][arm].append(told(name, arm, seed, Path(folder)))
                    if asked.json:
                        asked.json.write_text(json.dumps(found, indent=1))
    for name, arms in found.items():
        shown(DEMOS[name], arms)
    if asked.picture:
        draw(found, asked.picture)


def settings(demo: Demo, seed: int, *more: str) -> Config:
    overrides = (*OPEN, *demo.settings, f"seed={seed}", *more)
    return load_config(HERE.parent / "params.yaml", preset="digits", overrides=overrides)


def told(name: str, arm: str, seed: int, folder: Path) -> dict[str, Any]:
    """One run in a work directory of its own: its points, and when it first reached the target (None: never).

    The data are prepared once, with the first seed; later seeds change the start, the devices and who trains.
    """
    demo = DEMOS[name]
    rounds, every, own = demo.arms[arm]
    data = prepare(settings(demo, 1), folder / ("writers" if demo.settings is WRITERS else "flare"))
    records: list[RoundRecord] = []
    config = settings(demo, seed, f"run.rounds={rounds}", f"evaluate.every={every}", *own)
    checks = data.sites.parent / "checks" / "checks.json"
    diverged = False
    with tempfile.TemporaryDirectory(dir=folder) as work:
        try:
            simulate(config, Path(work), name, data.sites, checks, records.append)
        except Diverged:
            diverged = True
    judged = [record for record in records if (record.round + 1) % every == 0]
    points = [(record.virtual_s or 0.0, record.metrics["accuracy"]) for record in judged]
    late = [record.asynchrony for record in records[len(records) // 2 :] if record.asynchrony]
    seen = {
        "seed": seed,
        "points": points,
        "reached": next((at for at, accuracy in points if accuracy >= demo.target), None),
        "final": points[-1][1] if points else float("nan"),
        "best": max((accuracy for _, accuracy in points), default=float("nan")),
        "staleness": fmean(version["staleness_mean"] for version in late) if late else 0.0,
        "rate": fmean(version["rate"] for version in late) if late else 1.0,
        "diverged": diverged,
    }
    print(f"{name}, {arm}, seed {seed}: {summary(seen)}", file=sys.stderr, flush=True)
    return seen


def summary(seen: Mapping[str, Any]) -> str:
    """One run in a line; staleness and rate are means over the second half of the versions."""
    when = "never" if seen["reached"] is None else f"{seen['reached']:.0f} s"
    return (
        f"target at {when}, final {seen['final']:.4f}, best {seen['best']:.4f}, "
        f"staleness {seen['staleness']:.1f}, rate {seen['rate']:.2f}"
        + (", not finite" if seen["diverged"] else "")
    )


def shown(demo: Demo, arms: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """A line a run, and how many times sooner each arm was than the first, seed by seed."""
    print(f"\n{demo.title}; target {demo.target:g}")
    base = next(iter(arms.values()))
    for arm, runs in arms.items():
        for first, seen in zip(base, runs, strict=True):
            both = first["reached"] and seen["reached"]
            ratio = f" ({first['reached'] / seen['reached']:.2f} times sooner)" if both else ""
            print(f"  {arm:30} seed {seen['seed']}: {summary(seen)}{ratio}")


def draw(found: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]], picture: Path) -> None:
    """Accuracy over virtual time, a panel a demonstration, a line a seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.3 * len(found), 3.6), layout="constrained")
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    for axes, (name, arms) in zip(panels, found.items(), strict=True):
        demo = DEMOS[name]
        for color, (arm, runs) in zip(COLORS, arms.items(), strict=False):
            for i, seen in enumerate(runs):
                axes.plot(*zip(*seen["points"], strict=True), color=color, label="" if i else arm, lw=1.4)
        axes.axhline(demo.target, color="black", lw=0.8, ls=":")
        axes.set(
            title=demo.title,
            xlabel="virtual seconds (logarithmic)",
            ylabel="accuracy",
            ylim=(0, 1),
            xscale="log",
        )
        low, high = axes.get_xlim()
        ticks = [at for at in (30, 100, 300, 1000, 3000) if low < at < high]
        axes.set_xticks(ticks, [str(at) for at in ticks])
        axes.minorticks_off()
        axes.legend(fontsize=8, loc="lower right", frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture, dpi=130)


if __name__ == "__main__":
    main()
