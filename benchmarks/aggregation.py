"""Aggregation side by side: ours, Flower, ByzFL and the machine's own limits, in one run.

    python benchmarks/aggregation.py --json aggregation.json --picture docs/aggregation.png
    python benchmarks/aggregation.py --memory            # 1,000 x 10 million from a mapped file

Peers run in environments of their own, made with uv from the package index. Each number is the
median of some calls in a process of its own, with the same seeded matrix and both cores; the
contenders take turns, several times over, so that a busy minute meets all of them. Where fedcore tells OpenBLAS what the
processor can do (AMD's Zen 5), peers are not told, as their users are not; with OPENBLAS_CORETYPE=SkylakeX in the
environment of this script everybody is.
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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).parents[1]
FOUND = dict(os.environ)  # what every process starts with: fedcore, imported here, would choose for peers too
# Ours, and the machine's limits, as a command of fedcore runs: fedcore before numpy.
FEDCORE_FIRST = (
    "import runpy, sys, fedcore; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
)
PEERS = {"flower": "flwr", "byzfl": "byzfl"}
CONTENDERS = ("machine", "ours", *PEERS)
SIZES = ((10, 10_000), (10, 1_000_000), (10, 10_000_000), (100, 10_000), (100, 1_000_000), (1000, 10_000))
LARGER = ((100, 10_000_000), (1000, 1_000_000))  # 4 GB each: with --large
Calls = dict[str, Callable[[], Any]]
MDA_CLIENTS = 10  # its search grows with n over f


def ours(updates: np.ndarray, weights: np.ndarray, f: int) -> Calls:
    from fedcore.rules import RULES, decide

    n = len(updates)
    calls: Calls = {
        "mean": lambda: RULES["mean"](updates, weights),
        "median": lambda: RULES["median"](updates, weights),
        "trimmed mean": lambda: RULES["trimmed_mean"](updates, weights, f=f),
        "meamed": lambda: RULES["meamed"](updates, weights, f=f),
        "Krum": lambda: RULES["krum"](updates, weights, f=f),
        "multi-Krum": lambda: RULES["multi_krum"](updates, weights, f=f),
        "Krum (n-f-1)": lambda: RULES["krum"](updates, weights, f=f, neighbours=n - f - 1),
        "multi-Krum (n-f-1)": lambda: RULES["multi_krum"](updates, weights, f=f, neighbours=n - f - 1),
        "geometric median": lambda: RULES["geometric_median"](updates, weights),
        "centered clipping": lambda: RULES["centered_clipping"](updates, weights, radius=100.0),
        "Bulyan": lambda: RULES["bulyan"](updates, weights, f=f),
        "NNM + trimmed mean": lambda: (
            decide("trimmed_mean", updates, weights, {"f": f}, mixers=[("nnm", {"f": f})]).vector
        ),
    }
    if n <= MDA_CLIENTS:
        calls["MDA"] = lambda: RULES["mda"](updates, weights, f=f)
    return calls


def flower(updates: np.ndarray, weights: np.ndarray, f: int) -> Calls:
    from flwr.app import ArrayRecord, MetricRecord, RecordDict
    from flwr.server.strategy import aggregate as old
    from flwr.serverapp.strategy.multikrum import select_multikrum
    from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

    n = len(updates)
    results = [([row], int(weight)) for row, weight in zip(updates, weights, strict=True)]
    records = [
        RecordDict({"arrays": ArrayRecord([row]), "metrics": MetricRecord({"num-examples": float(weight)})})
        for row, weight in zip(updates, weights, strict=True)
    ]

    def chosen(keep: int) -> Any:
        return aggregate_arrayrecords(select_multikrum(records, f, keep), "num-examples")

    calls: Calls = {
        "mean": lambda: aggregate_arrayrecords(records, "num-examples"),
        "median": lambda: old.aggregate_median(results)[0],
        "trimmed mean": lambda: old.aggregate_trimmed_avg(results, f / n + 1e-9)[0],
        "Krum": lambda: old.aggregate_krum(results, f, 0)[0],
        "multi-Krum": lambda: old.aggregate_krum(results, f, n - f)[0],
        "Krum, message API": lambda: chosen(1),
        "multi-Krum, message API": lambda: chosen(n - f),
    }
    if n * n * updates.shape[1] <= 10**8:
        calls["Bulyan"] = lambda: old.aggregate_bulyan(list(results), f, old.aggregate_krum, to_keep=0)[0]
    return calls


def byzfl(updates: np.ndarray, weights: np.ndarray, f: int) -> Calls:
    import byzfl as library

    rules = {
        "mean": library.Average(),
        "median": library.Median(),
        "trimmed mean": library.TrMean(f=f),
        "meamed": library.Meamed(f=f),
        "Krum (n-f-1)": library.Krum(f=f),
        "multi-Krum (n-f-1)": library.MultiKrum(f=f),
        "geometric median": library.GeometricMedian(),
    }
    if len(updates) <= MDA_CLIENTS:
        rules["MDA"] = library.MDA(f=f)
    calls: Calls = {name: lambda rule=rule: rule(updates) for name, rule in rules.items()}
    calls["centered clipping"] = lambda: library.CenteredClipping(tau=100.0)(updates.copy())
    nnm, trimmed = library.NNM(f=f), library.TrMean(f=f)
    calls["NNM + trimmed mean"] = lambda: trimmed(nnm(updates))
    return calls


def machine(updates: np.ndarray, weights: np.ndarray, f: int) -> Calls:
    """What the hardware allows: reading the matrix with every core, and its BLAS products."""
    cores = len(os.sched_getaffinity(0))
    flat, narrow = updates.reshape(-1), weights.astype(np.float32)
    bounds = np.linspace(0, flat.size, 4 * cores + 1).astype(int)
    pool = ThreadPoolExecutor(cores)
    parts = list(zip(bounds[:-1], bounds[1:], strict=True))
    return {
        "read": lambda: list(pool.map(lambda part: np.add.reduce(flat[part[0] : part[1]]), parts)),
        "w @ X": lambda: narrow @ updates,
        "X @ X.T": lambda: updates @ updates.T,
        "sort": lambda: np.sort(updates, axis=0),
    }


def work(contender: str, n: int, d: int, repeat: int, longest: float, results: Path) -> None:
    """In the contender's environment: time every call, print one line of JSON, keep results to compare."""
    rng = np.random.default_rng(n + d)
    updates = rng.standard_normal((n, d), dtype=np.float32)
    weights, f = rng.integers(50, 500, n).astype(np.float64), liars(n)
    seconds: dict[str, list[float]] = {}
    for name, call in {"machine": machine, "ours": ours, "flower": flower, "byzfl": byzfl}[contender](
        updates, weights, f
    ).items():
        started = time.perf_counter()
        try:
            result = call()  # the first call compiles, imports, warms up
        except (ValueError, TypeError, RuntimeError, MemoryError) as error:
            print(f"{contender} {name} at {n} x {d}: {error}", file=sys.stderr)
            continue
        first = time.perf_counter() - started
        if isinstance(result, np.ndarray) and result.shape == (d,) and d <= 1_000_000:
            np.save(results / f"{contender}-{name.replace(' ', '_')}.npy", result.astype(np.float64))
        seconds[name] = []
        for _ in range(repeat if first < longest else 1):
            started = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started)
    print(json.dumps(seconds))


def liars(n: int) -> int:
    """A fifth of the clients, as many as Bulyan allows."""
    return min(n // 5, (n - 3) // 4)


def environment(contender: str, folder: Path) -> Path:
    """The python of the contender's environment, made if it is not there."""
    if contender not in PEERS:
        return Path(sys.executable)
    place = folder / f"bench-env-{contender}"
    python = place / "bin" / "python"
    if not python.exists():
        uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(place)], check=True)
        subprocess.run(
            [uv, "pip", "install", "--quiet", "--python", str(python), PEERS[contender], "setuptools<81"],
            check=True,
        )
    return python


def measured(asked: argparse.Namespace, folder: Path, results: Path) -> dict[str, Any]:
    """Seconds by size, contender and call, and how far results are apart."""
    pythons = {contender: environment(contender, folder) for contender in CONTENDERS}
    cells: dict[str, Any] = {}
    for n, d in (*asked.sizes, *(LARGER if asked.large else ())):
        taken: dict[str, dict[str, list[float]]] = {contender: {} for contender in CONTENDERS}
        for _ in range(asked.turns):
            for contender, python in pythons.items():
                for name, seconds in run(python, contender, n, d, asked, results).items():
                    taken[contender].setdefault(name, []).extend(seconds)
        cells[f"{n}x{d}"] = {
            "seconds": {c: {name: median(s) for name, s in calls.items()} for c, calls in taken.items()},
            "best": {c: {name: min(s) for name, s in calls.items()} for c, calls in taken.items()},
            "apart": differences(results),
        }
        print(f"n = {n}, d = {d:,}: done, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    return {"versions": versions(pythons), "machine": machine_facts(), "cells": cells}


def run(
    python: Path, contender: str, n: int, d: int, asked: argparse.Namespace, results: Path
) -> dict[str, list[float]]:
    """One contender's seconds in a process of its own; none if it fails, with the reason on stderr."""
    program = [__file__] if contender in PEERS else ["-c", FEDCORE_FIRST, __file__]
    command = [str(python), *program, "--worker", contender, str(n), str(d), str(asked.repeat)]
    done = subprocess.run(
        [*command, str(asked.longest), str(results)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
        env=FOUND,
    )
    if done.returncode:
        print(f"{contender} at {n} x {d}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return {}
    print(done.stderr, end="", file=sys.stderr)
    found: dict[str, list[float]] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def differences(results: Path) -> dict[str, float]:
    """Largest distance of a peer's coordinate from ours, over the spread of ours."""
    apart = {}
    for file in sorted(results.glob("*.npy")):
        contender, name = file.stem.split("-", 1)
        mine = results / f"ours-{name}.npy"
        if contender in PEERS and mine.exists():
            own = np.load(mine)
            apart[f"{contender} {name.replace('_', ' ')}"] = float(
                np.abs(np.load(file) - own).max() / own.std()
            )
    for file in results.glob("*.npy"):
        file.unlink()
    return apart


def versions(pythons: dict[str, Path]) -> dict[str, str]:
    """Version of each contender, asked in its environment."""
    ask = "from importlib.metadata import version; import sys; print(version(sys.argv[1]))"
    names = {"ours": "fedcore-mlops", **PEERS}
    return {
        contender: subprocess.run(
            [str(pythons[contender]), "-c", ask, name], capture_output=True, text=True, check=False
        ).stdout.strip()
        or "source"
        for contender, name in names.items()
    } | {"numpy": np.__version__, "python": platform.python_version()}


def machine_facts() -> dict[str, Any]:
    """Processor and cores."""
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {"cpu": cpu[0].partition(":")[2].strip() if cpu else "", "cores": len(os.sched_getaffinity(0))}


def table(facts: dict[str, Any]) -> str:
    """The seconds as Markdown, one table a size: median (best), and how many times ours."""
    lines = []
    for size, cell in facts["cells"].items():
        n, d = size.split("x")
        limits = ", ".join(f"{name} {_both(cell, 'machine', name)}" for name in cell["seconds"]["machine"])
        lines += [f"\n**n = {n}, d = {int(d):,}**; the machine: {limits}\n"]
        lines += ["| rule | ours, s | Flower, s | × | ByzFL, s | × |", "|---|---|---|---|---|---|"]
        for name in cell["seconds"]["ours"]:
            peers = [_against(cell, peer, name, name) for peer in PEERS]
            lines.append(f"| {name} | {_both(cell, 'ours', name)} | " + " | ".join(peers) + " |")
        for name in ("Krum", "multi-Krum"):
            newer = _against(cell, "flower", f"{name}, message API", name)
            lines.append(f"| {name}, Flower's message API | {_both(cell, 'ours', name)} | {newer} | | |")
    return "\n".join(lines)


def _both(cell: dict[str, Any], contender: str, name: str) -> str:
    return f"{cell['seconds'][contender][name]:.4f} ({cell['best'][contender][name]:.4f})"


def _against(cell: dict[str, Any], peer: str, name: str, own: str) -> str:
    if name not in cell["seconds"][peer]:
        return " | "
    ratios = [cell[kind][peer][name] / cell[kind]["ours"][own] for kind in ("seconds", "best")]
    return f"{_both(cell, peer, name)} | {ratios[0]:.1f} ({ratios[1]:.1f})"


def picture(facts: dict[str, Any], path: Path) -> None:
    """Bars of the largest size that every contender ran, on a logarithmic axis."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    size = "100x1000000" if "100x1000000" in facts["cells"] else next(iter(facts["cells"]))
    seconds = facts["cells"][size]["seconds"]
    names = list(seconds["ours"])
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for i, contender in enumerate(("ours", *PEERS)):
        shown = [(j + 0.27 * (i - 1), seconds[contender].get(name)) for j, name in enumerate(names)]
        there = [(y, x) for y, x in shown if x]
        label = f"{contender} {facts['versions'][contender]}"
        axes.barh([y for y, _ in there], [x for _, x in there], height=0.25, label=label)
    axes.axvline(
        seconds["machine"]["read"], color="black", linewidth=0.8, linestyle=":", label="reading memory once"
    )
    axes.set(yticks=range(len(names)), yticklabels=names, xscale="log", xlabel="seconds, median")
    axes.invert_yaxis()
    axes.set_title(f"n × d = {size.replace('x', ' × ')}, {facts['machine']['cores']} cores")
    axes.legend()
    figure.savefig(path, dpi=110)


MEMORY = """
import json, resource, sys, time
import numpy as np
from fedcore.rules import RULES, streaming_mean
updates = np.memmap(sys.argv[1], np.float32, 'r', shape=(int(sys.argv[2]), int(sys.argv[3])))
weights = np.arange(1.0, len(updates) + 1)
calls = {
    'mean': lambda: RULES['mean'](updates, weights),
    'trimmed mean': lambda: RULES['trimmed_mean'](updates, weights, f=len(updates) // 5),
    'streaming mean': lambda: streaming_mean((np.fromfile(sys.argv[1], np.float32, updates.shape[1],
        offset=4 * i * updates.shape[1]), w) for i, w in enumerate(weights)),
}
started = time.perf_counter()
result = calls[sys.argv[4]]()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({'seconds': time.perf_counter() - started, 'peak_gib': peak, 'sum': float(result.sum())}))
"""


def memory(rows: int, columns: int) -> dict[str, Any]:
    """Peak resident memory of the mean and the trimmed mean over a mapped file, each in its own process.

    The file is sparse: every sixteenth stretch of a row is written, the rest is holes of zeros, so
    that 40 GB need no 40 GB of disk. Memory does not depend on values.
    """
    rng = np.random.default_rng(1)
    found = {}
    with tempfile.TemporaryDirectory(prefix="bench-memory-") as folder:
        path = Path(folder) / "updates.bin"
        with path.open("wb") as file:
            stretch = min(columns, 65_536)
            for row in range(rows):
                file.seek(4 * row * columns)
                file.write(rng.standard_normal(stretch, dtype=np.float32).tobytes())
            file.truncate(4 * rows * columns)
        for name in ("mean", "trimmed mean", "streaming mean"):
            command = [sys.executable, "-c", MEMORY, str(path), str(rows), str(columns), name]
            done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=True)
            found[name] = json.loads(done.stdout)
            print(f"{name}: {found[name]}", flush=True)
    return found


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        contender, n, d, repeat, longest, results = sys.argv[2:]
        work(contender, int(n), int(d), int(repeat), float(longest), Path(results))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=_size, nargs="*", default=SIZES, metavar="NxD")
    parser.add_argument("--large", action="store_true", help="also matrices of 4 GB")
    parser.add_argument("--repeat", type=int, default=5, help="calls a turn")
    parser.add_argument("--turns", type=int, default=2, help="how often each contender has its turn")
    parser.add_argument(
        "--longest", type=float, default=10.0, help="a call that takes longer is timed once a turn"
    )
    parser.add_argument(
        "--environments", type=Path, default=Path(tempfile.gettempdir()), help="where peers live"
    )
    parser.add_argument("--json", type=Path, help="write the numbers there")
    parser.add_argument("--picture", type=Path, help="draw them there")
    parser.add_argument("--memory", action="store_true", help="only: peak memory over a mapped file of 40 GB")
    parser.add_argument("--shape", type=_size, default=(1000, 10_000_000), metavar="NxD", help="of that file")
    asked = parser.parse_args()
    if asked.memory:
        facts: dict[str, Any] = memory(*asked.shape)
    else:
        with tempfile.TemporaryDirectory(prefix="bench-results-") as results:
            facts = measured(asked, asked.environments, Path(results))
        print(table(facts))
        if asked.picture:
            picture(facts, asked.picture)
    if asked.json:
        asked.json.write_text(json.dumps(facts, indent=1) + "\n")


def _size(text: str) -> tuple[int, int]:
    n, _, d = text.partition("x")
    return int(n), int(d)


if __name__ == "__main__":
    main()
