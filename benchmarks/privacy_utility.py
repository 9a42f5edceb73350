"""What ε = 1 costs in accuracy, by the number of clients: Fashion-MNIST over virtual clients, through the round itself.

    python benchmarks/privacy_utility.py --tune                   # which settings, on held-out training images
    python benchmarks/privacy_utility.py --cells cells.jsonl      # goes on where it was interrupted
    python benchmarks/privacy_utility.py --cells cells.jsonl --picture docs/img/privacy_utility.png --json table.json

Every cell is one training by `fedcore.round.run_round` under the plan of its configuration: a
Poisson cohort of 5 % of the clients, 1,000 rounds, and in the private arm the plan's clip, noise
(6.0 clips on the sum) and charge. Noise is seeded here, so that anyone gets the same numbers: a
simulation, not a release. Both arms train the same softmax regression on the same images, and
both report the mean of the models of the second half of the rounds. `FEDCORE_DATA` says where
Fashion-MNIST lies.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from fedcore.adapters.model import Model, build_model, model_spec
from fedcore.config import Config, DataConfig, config_from
from fedcore.data.features import Features, Scale
from fedcore.data.federated import SiteData
from fedcore.data.images import TEN, load_fashion
from fedcore.data.schema import Schema
from fedcore.plan import build_plan
from fedcore.privacy.accountant import epsilon
from fedcore.rng import generator
from fedcore.round import run_round
from fedcore.simulation import Memory, SoftmaxFleet
from fedcore.state import State
from fedcore.types import Vector

RATE, NOISE, DELTA, BETA = 0.05, 6.0, 1e-5, 0.9
CELLS, ORIENTATIONS = 7, 4  # a picture becomes 7 x 7 cells of 4 orientations
WIDTH = CELLS * CELLS * ORIENTATIONS
TRAIN, HELD_OUT = 60_000, 10_000  # of the training images, the part that settings are chosen on
COLORS = {"plain": "#1f4e79", "private": "#b5483a"}


@dataclass(frozen=True)
class Settings:
    """What was tuned: the server's rate times the clip is how far one whole update moves the model."""

    lr: float
    clip: float = 1.0


# Chosen by --tune on held-out training images; see docs/privacy.md.
TUNED = {
    ("plain", 300): Settings(0.01),
    ("plain", 1_000): Settings(0.03),
    ("plain", 3_000): Settings(0.1),
    ("plain", 10_000): Settings(0.3),
    ("private", 300): Settings(0.001),
    ("private", 1_000): Settings(0.003),
    ("private", 3_000): Settings(0.01),
    ("private", 10_000): Settings(0.1, 0.5),
}
# Step lengths and clips tried for each arm and number of clients.
GRID: dict[str, Sequence[Settings]] = {
    "plain": [Settings(lr) for lr in (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)],
    "private": [
        Settings(step / clip, clip)
        for clip, step in product((0.5, 1.0, 2.0), (0.0003, 0.001, 0.003, 0.01, 0.03, 0.05, 0.08))
    ],
}


@dataclass(frozen=True)
class Cell:
    """One training: `images` to each client, drawn at random (``random``) or of two classes (``two``)."""

    arm: str
    clients: int
    images: int
    split: str
    seed: int
    lr: float
    clip: float
    rounds: int


@dataclass(frozen=True)
class Pictures:
    """Encoded images (n, WIDTH) and classes (n,), to train on and to judge by."""

    x: Any
    y: Any
    x_test: Any
    y_test: Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cells", type=Path, default=Path("privacy_utility.jsonl"), help="finished cells, a line each"
    )
    parser.add_argument("--clients", type=int, nargs="+", default=[10_000, 3_000, 1_000, 300])
    parser.add_argument("--arms", nargs="+", default=["private", "plain"], choices=["private", "plain"])
    parser.add_argument("--seeds", type=int, default=5, help="seeds 1, 2, …")
    parser.add_argument("--rounds", type=int, default=1_000)
    parser.add_argument("--images", type=int, default=6, help="a client; 0: all images are dealt out")
    parser.add_argument("--split", default="random", choices=["random", "two"], help="two classes a client")
    parser.add_argument("--tune", action="store_true", help="try the grid on held-out training images")
    parser.add_argument("--json", type=Path, help="write the table there")
    parser.add_argument("--picture", type=Path)
    asked = parser.parse_args()
    if asked.tune:
        tune(asked)
        return
    wanted = list(cells(asked))
    for cell in wanted:
        if cell not in kept(asked.cells):
            keep(asked.cells, cell, train(cell, pictures(tuning=False)))
    rows = table(wanted, kept(asked.cells))
    show(rows, asked.cells)
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    if asked.picture:
        draw(rows, asked.picture)


def cells(asked: argparse.Namespace) -> Iterator[Cell]:
    """What is asked for, the largest number of clients first, the arms of a seed together."""
    for clients, seed, arm in product(asked.clients, range(1, asked.seeds + 1), asked.arms):
        nearest = min((n for name, n in TUNED if name == arm), key=lambda n: abs(n - clients))
        found, images = TUNED[arm, nearest], asked.images or TRAIN // clients
        yield Cell(arm, clients, images, asked.split, seed, found.lr, found.clip, asked.rounds)


def tune(asked: argparse.Namespace) -> None:
    """Accuracy of every setting of the grid on images that no cell is judged by, seed 0."""
    console = Console(highlight=False)
    for clients, arm in product(asked.clients, asked.arms):
        for at in GRID[arm]:
            images = min(asked.images or TRAIN, (TRAIN - HELD_OUT) // clients)
            cell = Cell(arm, clients, images, asked.split, 0, at.lr, at.clip, asked.rounds)
            if cell not in kept(asked.cells):
                keep(asked.cells, cell, train(cell, pictures(tuning=True)))
            got = kept(asked.cells)[cell]
            console.print(
                f"{arm:8}{clients:7,} clip {at.clip:g} lr {at.lr:<7.4g} held out {got['accuracy']:.4f}"
            )


def train(cell: Cell, shown: Pictures) -> dict[str, float]:
    """One training through `run_round`: accuracy of the averaged and of the last model, and ε."""
    start = time.monotonic()
    config = configuration(cell)
    schema = Schema("fashion-mnist", "classification", "y", TEN, shape=(WIDTH,))
    spec = model_spec(config.model, schema, features())
    fleet = SoftmaxFleet(dealt(shown, cell), spec, config)
    plan = build_plan(config, fleet.rows, schema, None, "privacy-utility")
    model = np.zeros(build_model(spec).layout.size, np.float32)
    state = State("privacy-utility", 0, model, plan.optimizer.init(model))
    total, averaged = np.zeros(model.size), 0
    for number in range(cell.rounds):
        _, state = run_round(state, plan, fleet, Memory())
        if 2 * number >= cell.rounds:
            total, averaged = total + state.model, averaged + 1
    charge = plan.charge
    spent = epsilon((charge.event(n) for n in range(cell.rounds)), charge.delta) if charge else float("inf")
    tail = (total / averaged).astype(np.float32)
    return {
        "accuracy": accuracy(build_model(spec), tail, shown),
        "accuracy_last": accuracy(build_model(spec), state.model, shown),
        "epsilon": spent if charge else -1.0,
        "parameters": model.size,
        "seconds": round(time.monotonic() - start, 1),
    }


def configuration(cell: Cell) -> Config:
    """A cell's settings: no statistics are taken of the data, and clients are judged by nobody."""
    privacy = {
        "mode": "central",
        "clip": cell.clip,
        "noise_multiplier": NOISE,
        "delta": DELTA,
        "noise": "seeded",
        "max_noise_ratio": 100.0,  # the curve is to show where it breaks
        "evaluation": "off",
    }
    return config_from(
        {
            "seed": cell.seed,
            "run": {"rounds": cell.rounds},
            "data": {"name": "fashion-mnist", "standardize": False},
            "model": {"framework": "numpy", "name": "logistic"},
            "local": {"lr": 1.0, "momentum": 0.0, "epochs": 1, "batch_size": cell.images},
            "cohort": {"sampling": "poisson", "rate": RATE, "min_clients": 1, "quorum": 0.01},
            "combine": {"rule": "mean", "weights": "equal"},
            "server": {"optimizer": "momentum", "lr": cell.lr, "beta": BETA},
            "privacy": privacy if cell.arm == "private" else {"mode": "none"},
            "evaluate": {"every": cell.rounds},
        }
    )


@cache
def pictures(tuning: bool) -> Pictures:
    """The training and test images; for tuning, training images without and of the held-out part."""
    raw = load_fashion(DataConfig(name="fashion-mnist"))
    x, y = encoded(raw.arrays["x"]), raw.arrays["y"].astype(np.float32)
    if not tuning:
        return Pictures(x[:TRAIN], y[:TRAIN], x[TRAIN:], y[TRAIN:])
    order = generator(0, "held out").permutation(TRAIN)
    left, out = order[HELD_OUT:], order[:HELD_OUT]
    return Pictures(x[left], y[left], x[out], y[out])


def encoded(images: Any) -> Any:
    """Each image's own edges (n, WIDTH): how much of each orientation lies in each cell, standardised in the image.

    Nothing is learned from other images, so encoding spends nothing. A small histogram of
    oriented gradients: Dalal and Triggs 2005, square roots of shares as in Arandjelović and Zisserman 2012.
    """
    shades = np.pad(images.astype(np.float32) / 255, ((0, 0), (1, 1), (1, 1)))
    across = shades[:, 1:-1, 2:] - shades[:, 1:-1, :-2]
    down = shades[:, 2:, 1:-1] - shades[:, :-2, 1:-1]
    strength = np.hypot(across, down)
    turn = np.arctan2(down, across) % np.pi / np.pi * ORIENTATIONS
    low, part = np.floor(turn), turn - np.floor(turn)
    side, n = images.shape[1] // CELLS, len(images)
    found = np.empty((n, CELLS, CELLS, ORIENTATIONS), np.float32)
    for k in range(ORIENTATIONS):
        share = (low % ORIENTATIONS == k) * (1 - part) + ((low + 1) % ORIENTATIONS == k) * part
        found[..., k] = (strength * share).reshape(n, CELLS, side, CELLS, side).sum(axis=(2, 4))
    flat = found.reshape(n, WIDTH)
    roots = np.sqrt(flat / (flat.sum(axis=1, keepdims=True) + 1e-3))
    return (roots - roots.mean(axis=1, keepdims=True)) / (roots.std(axis=1, keepdims=True) + 1e-3)


def features() -> Features:
    """Encoded numbers as they are."""
    zeros, ones = (0.0,) * WIDTH, (1.0,) * WIDTH
    return Features((Scale("x", zeros, ones, zeros),), (), (WIDTH,))


def dealt(shown: Pictures, cell: Cell) -> dict[str, SiteData]:
    """The clients' images; nobody holds test images, the published ones are judged by outside."""
    order = generator(cell.seed, "deal", cell.split).permutation(len(shown.y))
    if cell.split == "two":
        half = cell.images // 2
        order = order[np.argsort(shown.y[order], kind="stable")]
        shards = order[: len(order) // half * half].reshape(-1, half)
        order = shards[generator(cell.seed, "shards").permutation(len(shards))].ravel()
    hands = order[: cell.clients * cell.images].reshape(cell.clients, cell.images)
    no_x, no_y = shown.x[:0], shown.y[:0]
    return {f"client-{i:05d}": SiteData(shown.x[h], shown.y[h], no_x, no_y) for i, h in enumerate(hands)}


def accuracy(model: Model, vector: Vector, shown: Pictures) -> float:
    """Share of images whose class is the likeliest."""
    return float((model.scores(vector, shown.x_test).argmax(axis=1) == shown.y_test).mean())


def kept(file: Path) -> dict[Cell, dict[str, float]]:
    """Finished cells."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return {Cell(**line["cell"]): line["found"] for line in map(json.loads, lines)}


def keep(file: Path, cell: Cell, found: dict[str, float]) -> None:
    """One line more, whole before the next cell begins."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps({"cell": asdict(cell), "found": found}) + "\n")
        lines.flush()
        os.fsync(lines.fileno())


def table(wanted: Sequence[Cell], found: dict[Cell, dict[str, float]]) -> list[dict[str, float]]:
    """A row for each number of clients: mean and deviation over seeds; a loss is of the same seed's two arms."""
    rows = []
    for clients in sorted({cell.clients for cell in wanted}):
        got = {
            arm: {c.seed: found[c] for c in wanted if c.clients == clients and c.arm == arm and c in found}
            for arm in ("private", "plain")
        }
        seeds = sorted(set(got["private"]) & set(got["plain"]))
        if not seeds:
            continue
        numbers = {arm: [100 * got[arm][seed]["accuracy"] for seed in seeds] for arm in ("plain", "private")}
        losses = [a - b for a, b in zip(numbers["plain"], numbers["private"], strict=True)]
        row: dict[str, float] = {"clients": clients, "seeds": len(seeds)}
        for name, values in {**numbers, "loss": losses}.items():
            row |= {name: fmean(values), f"{name}_sd": stdev(values) if len(values) > 1 else 0.0}
        private = got["private"][seeds[0]]
        row |= {"epsilon": private["epsilon"], "parameters": private["parameters"]}
        row["noise_ratio"] = NOISE * float(np.sqrt(private["parameters"])) / (RATE * clients)
        rows.append(row)
    return rows


def show(rows: Sequence[dict[str, float]], file: Path) -> None:
    """The table on the console."""
    shown = Table("clients", "ε", "noise / clip", "no privacy, %", "private, %", "loss, points", "seeds")
    for row in rows:
        numbers = (f"{row[name]:.2f} ± {row[name + '_sd']:.2f}" for name in ("plain", "private", "loss"))
        ratio = f"{row['noise_ratio']:.2f}"
        shown.add_row(f"{row['clients']:,}", f"{row['epsilon']:.4f}", ratio, *numbers, str(row["seeds"]))
    console = Console(highlight=False)
    console.print(shown)
    console.print(f"cells    {file}", soft_wrap=True)


def draw(rows: Sequence[dict[str, float]], file: Path) -> None:
    """Accuracy of both arms over the number of clients, and under it what privacy costs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 6.2), layout="constrained")
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    clients = [row["clients"] for row in rows]
    names = {"plain": "no privacy", "private": f"ε = {rows[-1]['epsilon']:.2f}, δ = {DELTA:g}"}
    for arm, name in names.items():
        means, spread = [row[arm] for row in rows], [row[f"{arm}_sd"] for row in rows]
        top.errorbar(clients, means, spread, marker="o", capsize=4, color=COLORS[arm], label=name)
    losses, spread = [row["loss"] for row in rows], [row["loss_sd"] for row in rows]
    below.errorbar(clients, losses, spread, marker="o", capsize=4, color="#444")
    below.axhline(2, color="#999", ls="--", lw=1)
    below.annotate("2 points", (clients[0], 2), (0, 4), textcoords="offset points", color="#777")
    for place, loss, sd in zip(clients, losses, spread, strict=True):
        below.annotate(f"{loss:.2f}", (place, loss + sd), (0, 7), textcoords="offset points", ha="center")
    top.set_ylabel("accuracy on the test images, %")
    below.set_ylabel("loss, points")
    below.set_ylim(0, 1.2 * (max(losses) + max(spread)) + 1)
    below.set_xscale("log")
    below.set_xticks(clients, [f"{n:,}" for n in clients])
    below.minorticks_off()
    below.set_xlabel("clients of 6 images each")
    top.legend(loc="lower right", frameon=False)
    top.set_title("What ε = 1 costs, by the number of clients", loc="left")
    for axes in (top, below):
        axes.spines[["top", "right"]].set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=130)


if __name__ == "__main__":
    main()
