#!/usr/bin/env python
"""Seconds a round of simulated federated learning: fedcore beside pfl-research, Flower and a bare PyTorch loop.

    python benchmarks/simulation.py --rounds 12 --repeat 2 --json out.json

Fashion-MNIST over 100 clients of about 600 rows, 10 a round, one epoch in batches of 20, a network 784-200-200-10,
SGD at 0.1, the model judged on all test rows after each round: the same encoded rows for everybody. Peers run in
environments of their own, made with uv and kept in ``--cache``. Turns are interleaved (Flower has one); what is
shown is the median of all rounds but the first. fedcore trains the network in torch, and in numpy with its own compiled
loop (``model.framework: numpy``). Every process computes on one thread, but for the lines that say
otherwise: there fedcore trains clients on threads, and PyTorch shares each operation among them. Needs the set (Debian:
dataset-fashion-mnist).
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
WORK = HERE / "simulation_work.py"
FOUND = dict(os.environ)  # what every process starts with: fedcore, imported here, would choose for peers too
# Ours as a command of fedcore runs: fedcore before numpy, whose products of matrices depend on it on AMD's Zen 5.
FEDCORE_FIRST = (
    "import runpy, sys, fedcore; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
)
TORCH = "torch==2.13.0"
PEERS = {"pfl": ["pfl[pytorch]", TORCH], "flower": ["flwr[simulation]", TORCH]}
SETTINGS = (
    "data.name=fashion-mnist",
    "data.partition.scheme=iid",
    "data.partition.clients=100",
    "data.test_fraction=0.142857",
    "model.framework=torch",
    "model.hidden=[200,200]",
    "local.epochs=1",
    "local.batch_size=20",
    "local.momentum=0",
    "local.lr=0.1",
    "cohort.sampling=uniform",
    "cohort.size=10",
    "tracking.enabled=false",
)
FRAMEWORKS = {"ours": "torch", "compiled": "numpy"}  # how fedcore's lines train the network
LINES = {
    "ours": "fedcore, one thread",
    "pfl": "pfl-research, one thread",
    "bare": "bare PyTorch loop",
    "compiled": "fedcore (numpy), one thread",
    "ours-t": "fedcore, one process, {n} threads",
    "compiled-t": "fedcore (numpy), one process, {n} threads",
    "pfl-t": "pfl-research, one process, {n} threads",
    "ours-2": "fedcore, {n} processes",
    "compiled-2": "fedcore (numpy), {n} processes",
    "pfl-2": "pfl-research, {n} processes",
    "flower": "Flower, {n} processes",
}

# (peer, ours): whose ratios are shown
PAIRS = (
    ("pfl", "ours"),
    ("pfl", "compiled"),
    ("bare", "ours"),
    ("bare", "compiled"),
    ("pfl", "ours-t"),
    ("pfl", "compiled-t"),
    ("pfl-t", "ours-t"),
    ("pfl-t", "compiled-t"),
    ("pfl-2", "ours-2"),
    ("pfl-2", "compiled-2"),
    ("pfl-2", "compiled-t"),
    ("flower", "compiled-2"),
    ("flower", "compiled-t"),
)


def main() -> None:
    asked = arguments()
    asked.cache.mkdir(parents=True, exist_ok=True)
    pythons = {peer: environment(peer, asked.cache) for peer in PEERS}
    place = rows(asked.cache)
    took: dict[str, list[dict[str, Any]]] = {name: [] for name in asked.lines}
    pure: dict[str, list[dict[str, float]]] = {name: [] for name in FRAMEWORKS}
    for turn in range(asked.repeat):
        for name in asked.lines:
            if name == "flower" and turn:
                continue  # its start takes longer than all the others' rounds
            found = measured(name, pythons, place, asked)
            if found is not None:
                took[name].append(found)
                print(f"turn {turn + 1}: {name} {median(found['seconds']):.3f} s a round", file=sys.stderr)
        for name, framework in FRAMEWORKS.items():
            pure[name].append(alone(place, asked.rounds, framework))
    result = {
        "lines": {name: summed(turns) for name, turns in took.items() if turns},
        "pure": {
            name: {part: median(turn[part] for turn in turns) for part in turns[0]}
            for name, turns in pure.items()
        },
        "versions": versions(pythons),
        "machine": f"{os.cpu_count()} cores, {processor()}, load {os.getloadavg()[0]:.1f}",
        "processes": asked.processes,
    }
    shown(result)
    if asked.json:
        asked.json.write_text(json.dumps(result, indent=2))
    if asked.picture:
        draw(result, asked.picture)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=12, help="rounds of each turn")
    parser.add_argument("--repeat", type=int, default=2, help="turns of each line, interleaved")
    parser.add_argument("--processes", type=int, default=2, help="of the lines with several")
    parser.add_argument("--lines", nargs="*", default=list(LINES), choices=list(LINES))
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "fedcore-bench")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    parser.add_argument("--picture", type=Path, help="draw them there")
    return parser.parse_args()


def environment(peer: str, cache: Path) -> Path:
    """The python of the peer's environment, made if it is not there."""
    place = cache / f"env-{peer}"
    python = place / "bin" / "python"
    if not (place / "made").exists():
        uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
        links = {"UV_FIND_LINKS": os.environ["PIP_FIND_LINKS"]} if "PIP_FIND_LINKS" in os.environ else {}
        given = {**os.environ, **(links or {"UV_TORCH_BACKEND": "cpu"})}
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(place)], check=True)
        install = [uv, "pip", "install", "--quiet", "--python", str(python), *PEERS[peer]]
        subprocess.run(install, check=True, env=given)
        (place / "made").touch()
    return python


def settings(*more: str) -> Any:
    from fedcore.config import load_config

    return load_config(HERE.parent / "params.yaml", preset="digits", overrides=(*SETTINGS, *more))


def rows(cache: Path) -> Path:
    """Where the encoded rows of all clients lie, one after another; made if they are not there."""
    from fedcore.data.described import described
    from fedcore.data.prepare import prepare
    from fedcore.data.schema import Schema
    from fedcore.local.place import Place
    from fedcore.simulation import open_fleet

    config = settings()
    data = prepare(config, cache / "work")
    folder = cache / "rows"
    if (folder / "made").exists():
        return folder
    folder.mkdir(exist_ok=True)
    place = Place(data.sites, config)
    found = described(open_fleet(config, data.sites, data.passing), "r", Schema.load(data.sites), config.data)
    features = json.loads(found.features.to_json())
    parts = [place.ready(name, features)[0] for name in data.passing]
    for name, source in (("x", "x_train"), ("y", "y_train"), ("x_test", "x_test"), ("y_test", "y_test")):
        np.save(folder / f"{name}.npy", np.concatenate([getattr(part, source) for part in parts]))
    np.save(folder / "start.npy", np.cumsum([0, *(len(part.y_train) for part in parts)]))
    (folder / "made").touch()
    return folder


def measured(
    name: str, pythons: dict[str, Path], place: Path, asked: argparse.Namespace
) -> dict[str, Any] | None:
    """One turn of a line in a process of its own; None if it fails, with the reason on standard error."""
    contender, _, kind = name.partition("-")
    many = kind == "2"
    processes = asked.processes if many or contender == "flower" else 1
    threads = asked.processes if kind == "t" else 1
    python = str(pythons.get(contender, sys.executable))
    command = [python, str(WORK), contender, str(place), str(asked.rounds), str(processes)]
    own = contender in FRAMEWORKS
    if own:
        engine = "workers" if many else "threads" if kind == "t" else "serial"
        command = [
            *(python, "-c", FEDCORE_FIRST, __file__, "--ours"),
            str(asked.cache),
            str(asked.rounds),
            engine,
            str(asked.processes),
            FRAMEWORKS[contender],
        ]
    elif contender == "pfl" and many:
        torchrun = [python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command = [*torchrun, *command[1:]]
    given = {**FOUND, "FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    if not own:  # fedcore sees to it itself, as its users run it
        given["OMP_NUM_THREADS"] = str(threads)
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=given, timeout=900)
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"start"')]
    if not lines:
        print(f"{name} failed: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    found: dict[str, Any] = json.loads(lines[-1])
    return found | {"wall": time.perf_counter() - began}


def ours(cache: Path, rounds: int, engine: str, workers: int, framework: str) -> None:
    """In a process of its own: a whole run through the public door, journal and all."""
    from fedcore.coordinator import simulate

    times, cpu, scores, began = [], [], [], time.perf_counter()

    def heard(record: Any) -> None:
        times.append(time.perf_counter())
        cpu.append(time.process_time())
        scores.append(record.metrics["accuracy"])

    asked = (f"run.rounds={rounds}", f"run.engine={engine}", f"run.workers={workers}")
    config = settings(*asked, f"model.framework={framework}")
    sites = next(path for path in sorted((cache / "work").glob("data*/sites")))
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        simulate(config, Path(folder), "bench", sites, sites.parent / "checks" / "checks.json", heard)
    told = {"start": times[0] - began, "seconds": np.diff(times).tolist(), "cpu": np.diff(cpu).tolist()}
    print(json.dumps(told | {"accuracy": scores[-1]}))


def alone(place: Path, rounds: int, framework: str) -> dict[str, float]:
    """What `compute` finds in a process of its own."""
    command = [sys.executable, "-c", FEDCORE_FIRST, __file__, "--pure", str(place), str(rounds), framework]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=FOUND)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def compute(place: Path, rounds: int, framework: str) -> dict[str, float]:
    """Median CPU seconds a round that training alone, and judging alone, take with our model: nothing else is done."""
    from threadpoolctl import threadpool_limits

    from fedcore.adapters.model import ModelSpec, Training, build_model

    model = build_model(ModelSpec(framework, "mlp", (200, 200), None, (28, 28), 10, "classification"))
    x, y, start = (np.load(place / f"{name}.npy") for name in ("x", "y", "start"))
    x_test = np.load(place / "x_test.npy")
    rng = np.random.default_rng(1)
    vector, training, judging = model.init(rng), [], []
    with threadpool_limits(1):
        for _ in range(rounds):
            chosen = [slice(start[c], start[c + 1]) for c in rng.choice(100, 10, replace=False)]
            began = time.process_time()
            for own in chosen:
                model.train(vector, x[own], y[own], Training(0.1, 0.0, 0.0, 1, 20), rng)
            training.append(time.process_time() - began)
            began = time.process_time()
            for part in np.array_split(x_test, 100):
                model.scores(vector, part)
            judging.append(time.process_time() - began)
    return {"training": median(training[1:]), "judging": median(judging[1:])}


def summed(turns: list[dict[str, Any]]) -> dict[str, float]:
    seconds = [second for turn in turns for second in turn["seconds"]]
    return {
        "median": median(seconds),
        "best": min(seconds),
        "cpu": median(second for turn in turns for second in turn["cpu"]),
        "start": median(turn["start"] for turn in turns),
        "wall": median(turn["wall"] for turn in turns),
        "accuracy": median(turn["accuracy"] for turn in turns),
    }


def versions(pythons: dict[str, Path]) -> dict[str, str]:
    ask = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    found = {
        "python": platform.python_version(),
        "fedcore": version("fedcore-mlops"),
        "torch": version("torch"),
    }
    for peer, package in (("pfl", "pfl"), ("flower", "flwr")):
        done = subprocess.run(
            [pythons[peer], "-c", ask, package, "torch"], capture_output=True, text=True, check=True
        )
        found |= dict(zip((package, f"{package}'s torch"), done.stdout.split(), strict=True))
    return found


def processor() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.processor()


def shown(result: dict[str, Any]) -> None:
    lines, n = result["lines"], result["processes"]
    print(f"{'':32} {'s/round':>8} {'best':>7} {'cpu s':>7} {'to round 1':>11} {'accuracy':>9}")
    for name, told in lines.items():
        title = LINES[name].format(n=n)
        print(
            f"{title:32} {told['median']:8.3f} {told['best']:7.3f} {told['cpu']:7.3f}"
            f" {told['start']:9.1f} s {told['accuracy']:9.4f}"
        )
    print()
    for name, pure in result["pure"].items():
        told = f"{FRAMEWORKS[name]}: training alone {pure['training']:.3f} CPU s a round, judging {pure['judging']:.3f}"
        if name in lines:
            over = lines[name]["cpu"] / (pure["training"] + pure["judging"]) - 1
            told += f"; overhead of fedcore on one thread {over:+.0%} CPU time"
        print(told)
    for left, right in PAIRS:
        if left in lines and right in lines:
            ratio = lines[left]["median"] / lines[right]["median"]
            more = (
                f" ({lines[left]['cpu'] / lines[right]['cpu']:.2f} in CPU time)"
                if right in FRAMEWORKS
                else ""
            )
            print(
                f"{LINES[right].format(n=n)} is {ratio:.2f} times as fast as {LINES[left].format(n=n)}{more}"
            )
    print(result["machine"], *(f"{name} {number}" for name, number in result["versions"].items()), sep=", ")


def draw(result: dict[str, Any], picture: Path) -> None:
    from matplotlib.figure import Figure

    named = [
        (LINES[name].format(n=result["processes"]), told["median"]) for name, told in result["lines"].items()
    ]
    figure = Figure(figsize=(7, 0.8 + 0.42 * len(named)), layout="constrained")
    axes = figure.subplots()
    colors = ["#1f4e79" if title.startswith("fedcore") else "#a9b4bd" for title, _ in named]
    bars = axes.barh([title for title, _ in named], [seconds for _, seconds in named], color=colors)
    axes.bar_label(bars, [f"{seconds:.2f} s" for _, seconds in named], padding=4)
    axes.invert_yaxis()
    axes.set_xlabel("seconds a round, evaluation included (less is better)")
    axes.set_title("Fashion-MNIST, 100 clients, 10 a round, 784-200-200-10", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)
    figure.savefig(picture, dpi=130)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--ours"]:
        ours(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5]), sys.argv[6])
    elif sys.argv[1:2] == ["--pure"]:
        print(json.dumps(compute(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])))
    else:
        main()
