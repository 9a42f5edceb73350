#!/usr/bin/env python
"""pfl-research's CIFAR-10 benchmark, by fedcore and by pfl-research in turns: 1,000 users of 50 pictures, 50 a round.

    python benchmarks/simulation_cifar.py --device cuda --rounds 1500 --peer-rounds 100
    python benchmarks/simulation_cifar.py --device cpu --cohort 5 --rounds 10 --peer-rounds 10

Batches of 10, one epoch, rate 0.1, the network of two convolutions that pfl's benchmark trains (dropout included),
judged on 10,000 pictures every 10 rounds: the same encoded rows for both. fedcore runs whole rounds with their journal
on disk, by the batched engine. `--peer` is the python of an environment with pfl[pytorch]. The pictures are those of
the folder cifar10 in $FEDCORE_DATA.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from simulation_work import pfl_training

USERS, BATCH, RATE, EVERY = 1000, 10, 0.1, 10
SHAPE = (3, 32, 32)


def network(shape: tuple[int, ...], outputs: int) -> torch.nn.Module:
    """Two convolutions and a dense layer for rows of (channels, height, width)."""
    nn, side = torch.nn, (shape[1] - 4) // 2
    convolutions = (nn.Conv2d(shape[0], 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2))
    dense = (nn.Linear(64 * side * side, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, outputs))
    module = nn.Sequential(*convolutions, nn.Dropout(0.25), nn.Flatten(), *dense)
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(part.weight)
    return module


def main() -> None:
    asked = arguments()
    if asked.turn:
        {"ours": ours, "pfl": pfl}[asked.turn](asked)
        return
    with tempfile.TemporaryDirectory() as folder:
        asked.folder = asked.folder or Path(folder)
        write_sites(asked.folder / "sites")
        found = {name: turn(name, asked) for name in ("ours", "pfl")}
    for name, told in found.items():
        print(
            f"{name:6} {told['median']:.4f} s a round (median of {told['rounds']}), accuracy {told['accuracy']:.4f} "
            f"after {told['rounds']} rounds, {told['wall']:.1f} s in all"
        )
    print(f"fedcore is {found['pfl']['median'] / found['ours']['median']:.2f} times as fast as pfl-research")
    print(f"whole rounds by mean: {found['pfl']['mean'] / found['ours']['mean']:.2f} times")
    gpu = torch.cuda.get_device_name() if asked.device != "cpu" else f"{os.cpu_count()} cores"
    print(gpu, f"torch {torch.__version__}", f"cohort {asked.cohort}", sep=", ")
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument(
        "--engine", choices=("serial", "workers", "batched"), help="default: batched on cuda, else workers"
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--peer-rounds", type=int, default=20)
    parser.add_argument("--cohort", type=int, default=50)
    parser.add_argument("--peer", default=sys.executable, help="python with pfl[pytorch]")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--turn", choices=("ours", "pfl"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    asked.engine = asked.engine or ("batched" if asked.device == "cuda" else "workers")
    return asked


def turn(name: str, asked: argparse.Namespace) -> dict[str, Any]:
    """One contender in a process of its own."""
    rounds = asked.rounds if name == "ours" else asked.peer_rounds
    given = ["--turn", name, "--device", asked.device, "--rounds", str(rounds), "--cohort", str(asked.cohort)]
    given += ["--engine", asked.engine]
    python = sys.executable if name == "ours" else asked.peer
    command = [python, __file__, *given, "--folder", str(asked.folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}: {found['median']:.4f} s a round", file=sys.stderr)
    return found


def write_sites(folder: Path) -> None:
    """All 60,000 pictures, shuffled, 60 a user: ten of them are held out, so that 10,000 are judged on."""
    from fedcore.config import DataConfig
    from fedcore.data import cifar

    raw = cifar.load(DataConfig("cifar10"))
    order = np.random.default_rng(0).permutation(len(raw.arrays["y"])).reshape(USERS, -1)
    folder.mkdir(parents=True)
    raw.schema.save(folder)
    for user, own in enumerate(order):
        (folder / f"user-{user:04d}").mkdir()
        np.savez(
            folder / f"user-{user:04d}" / "rows.npz", **{name: rows[own] for name, rows in raw.arrays.items()}
        )


def ours(asked: argparse.Namespace) -> None:
    """Whole rounds through the fold, each committed to a journal on disk."""
    from fedcore.adapters.model import build_model, model_spec
    from fedcore.config import load_config
    from fedcore.data.described import described
    from fedcore.data.schema import Schema
    from fedcore.plan import build_plan
    from fedcore.rng import generator
    from fedcore.round import next_state, round_record, run_steps
    from fedcore.simulation import open_fleet
    from fedcore.simulation.held import HeldJournal
    from fedcore.state import State
    from fedcore.store import Store

    began, sites, engine = time.perf_counter(), asked.folder / "sites", [f"run.engine={asked.engine}"]
    if asked.engine == "workers":
        engine.append(f"run.workers={os.cpu_count()}")
    config = load_config(
        overrides=[
            "data.name=own", "data.test_fraction=0.1666667", "model.framework=torch",
            f"model.factory={Path(__file__).stem}:network", "local.algorithm=sgd", "local.epochs=1", "local.momentum=0",
            "local.schedule=constant",
            f"local.batch_size={BATCH}", f"local.lr={RATE}", "cohort.sampling=uniform", f"cohort.size={asked.cohort}",
            "combine.weights=equal", f"evaluate.every={EVERY}", f"run.rounds={asked.rounds}", "run.memory_mb=8192",
            f"run.device={asked.device}", *engine,
        ]
    )  # fmt: skip
    schema, names = Schema.load(sites), tuple(sorted(p.name for p in sites.iterdir() if p.is_dir()))
    fleet = open_fleet(config, sites, names)
    features, rows, _ = described(fleet, "bench", schema, config.data)
    (asked.folder / "features.json").write_text(features.to_json())
    plan = build_plan(config, rows, schema, json.loads(features.to_json()), "bench")
    model = build_model(model_spec(config.model, schema, features)).init(generator(0, "init"))
    state, stamps, score = State("bench", 0, model, plan.optimizer.init(model)), [time.perf_counter()], 0.0
    with tempfile.TemporaryDirectory() as work, Store.at(Path(work)) as store:
        for number in range(asked.rounds):
            known = run_steps(state, plan, fleet, HeldJournal(store, "bench", number, frozenset({"record"})))
            record, state = round_record(known), next_state(known)
            stamps.append(time.perf_counter())
            score = record.metrics.get("accuracy", score)
            if number in (0, 1, 10) or (number + 1) % 100 == 0:
                steps = " ".join(f"{step} {took * 1000:.0f}" for step, took in record.seconds.items())
                print(f"round {number + 1}: {score:.4f}, ms: {steps}", file=sys.stderr)
    told_of(stamps, began, score)


def told_of(stamps: list[float], began: float, accuracy: float) -> None:
    took = np.diff(stamps)[min(10, len(stamps) // 2) :].tolist()
    found = {"median": median(took), "mean": float(np.mean(took)), "rounds": len(stamps) - 1}
    print(json.dumps(found | {"accuracy": accuracy, "wall": time.perf_counter() - began}))


def pfl(asked: argparse.Namespace) -> None:
    """Apple's pfl-research, rows on the device from the start."""
    began, device = time.perf_counter(), torch.device(asked.device)
    # The rows as fedcore encodes them: each number from 0 to 1, less its mean, over its deviation.
    described = json.loads((asked.folder / "features.json").read_text())["scales"][0]
    center, scale = (np.array(described[key], np.float32).reshape(SHAPE) for key in ("center", "scale"))
    classes = json.loads((asked.folder / "sites" / "schema.json").read_text())["classes"]
    users, held = {}, []
    for user, file in enumerate(sorted((asked.folder / "sites").glob("*/rows.npz"))):
        found = np.load(file)
        x = torch.from_numpy((found["x"] / np.float32(255) - center) / scale).to(device)
        y = torch.from_numpy(np.searchsorted(classes, found["y"])).to(device)
        users[user] = (x[:50], y[:50])
        held.append((x[50:], y[50:]))
    stamps, scores = [time.perf_counter()], [0.0]

    def heard(score: float | None) -> None:
        stamps.append(time.perf_counter())
        scores.append(scores[-1] if score is None else score)

    torch.manual_seed(0)
    test = (torch.cat([x for x, _ in held]), torch.cat([y for _, y in held]))
    module = network(SHAPE, 10).to(device)
    pfl_training(module, users, test, (asked.rounds, asked.cohort, BATCH, RATE, EVERY), heard)
    print(f"pfl {version('pfl')}", file=sys.stderr)
    told_of(stamps, began, scores[-1])


if __name__ == "__main__":
    main()
