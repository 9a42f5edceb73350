"""Our ring all-reduce beside the library's, in one run: the same vectors, taking turns.

    python benchmarks/parallel.py --processes 2 --json parallel.json

The processes are started by torchrun, a thread each. Every number is the time of rank 0 from a barrier to
its own sum; the median and, in brackets, the least of the repeats.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from fedcore.parallel.world import REDUCES, joined, place

SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
REPEATS = 15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the numbers there")
    parser.add_argument("--rank-of", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.rank_of:
        measure(asked.rank_of)
        return
    facts = start(asked.processes)
    Console(width=100).print(table(facts))
    if asked.json:
        asked.json.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def start(processes: int) -> dict[str, Any]:
    """What the ranks measured, with versions and machine."""
    with tempfile.TemporaryDirectory(prefix="parallel-") as folder:
        found = Path(folder) / "found.json"
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
        subprocess.run(
            [*torchrun, __file__, "--rank-of", str(found)],
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        seconds = json.loads(found.read_text(encoding="utf-8"))
    machine = {"processors": os.cpu_count(), "machine": platform.machine(), "torch": torch.__version__}
    return {"processes": processes, "seconds": seconds, **machine}


def measure(found: Path) -> None:
    """One rank's part; rank 0 writes seconds by size and name to `found`."""
    torch.set_num_threads(1)
    seconds: dict[str, dict[str, list[float]]] = {}
    with joined(place(), lambda: None, 60, 120) as world:
        for size in SIZES:
            vector = torch.randn(size, generator=torch.Generator().manual_seed(world.rank))
            taken: dict[str, list[float]] = {name: [] for name in REDUCES}
            for _ in range(REPEATS):
                for name, reduce in REDUCES.items():
                    values = vector.clone().to(world.device)
                    world.all_reduce(torch.zeros(1, device=world.device))  # a barrier
                    began = time.perf_counter()
                    reduce(values, world)
                    float(values[0])  # waits for the device
                    taken[name].append(time.perf_counter() - began)
            seconds[str(size)] = taken
    if world.rank == 0:
        found.write_text(json.dumps(seconds), encoding="utf-8")


def table(facts: dict[str, Any]) -> Table:
    shown = Table("numbers (float32)", "our ring, ms", "library, ms", "ring / library")
    for size, taken in facts["seconds"].items():
        ring, library = (taken[name] for name in ("ring", "library"))
        cells = [f"{1e3 * median(times):.2f} ({1e3 * min(times):.2f})" for times in (ring, library)]
        shown.add_row(f"{int(size):,}", *cells, f"{median(ring) / median(library):.2f}")
    shown.caption = (
        f"{facts['processes']} processes, torch {facts['torch']}, {facts['processors']} processors"
    )
    return shown


if __name__ == "__main__":
    main()
