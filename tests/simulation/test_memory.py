"""What a simulating process holds does not grow with the population, and a small client stays small."""

import json
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROUNDS_OF_A_POPULATION = """
import json, os, sys
from dataclasses import replace
from pathlib import Path
import numpy as np, psutil
from fedcore.config import load_config
from fedcore.data.features import Features, Scale
from fedcore.data.schema import Schema
from fedcore.plan import build_plan
from fedcore.round import run_round
from fedcore.selection import Turn
from fedcore.session import features_tree
from fedcore.simulation import Memory, open_fleet
from fedcore.state import State

sites, number = Path(sys.argv[1]), int(sys.argv[2])
config = load_config(overrides=("cohort.sampling=uniform", "cohort.size=10", "model.hidden=[200,200]",
                                "model.framework=torch", "local.algorithm=sgd", "local.batch_size=20",
                                "local.epochs=1", "checks.min_rows=1", "run.memory_mb=8"))
schema = Schema("s", "classification", "y", tuple(map(str, range(10))), shape=(28, 28))
sites.mkdir(parents=True)
schema.save(sites)
rng = np.random.default_rng(0)
x, y = rng.integers(0, 256, (600, 28, 28)).astype(np.uint8), rng.integers(0, 10, 600).astype(str)
np.savez(sites / "rows.npz", x=x, y=y)
one = (1.0,) * 784
features = features_tree(Features((Scale("x", (0.0,) * 784, one, (0.0,) * 784),), (), shape=(28, 28)))
names = tuple(f"client-{i:06d}" for i in range(number))
plan = replace(build_plan(config, dict.fromkeys(names, 480), schema, features, "r"), evaluate_every=0)
fleet = open_fleet(config, sites, names)
size = 784 * 200 + 200 + 200 * 200 + 200 + 2000 + 10
state = State("r", 0, np.zeros(size, np.float32), plan.optimizer.init(np.zeros(size, np.float32)))
for round_number in range(6):
    for name in plan.draw(plan.clients, plan.chance("r", round_number), Turn(round_number)):
        (sites / name).mkdir(exist_ok=True)
        if not (sites / name / "rows.npz").exists():
            os.link(sites / "rows.npz", sites / name / "rows.npz")
    record, state = run_round(state, plan, fleet, Memory())
assert len(record.replied) == 10, record
print(json.dumps({"rss": psutil.Process().memory_info().rss / 1e6, "record": len(record.canonical())}))
"""

LENET = r"""
import json, re
from pathlib import Path
import numpy as np
from fedcore.adapters.model import ModelSpec, Training, build_model
model = build_model(ModelSpec("torch", "lenet", (), None, (28, 28), 10, "classification"))
rng = np.random.default_rng(0)
x, y = rng.random((600, 28, 28)).astype(np.float32), rng.integers(0, 10, 600).astype(np.float32)
vector, facts = model.train(model.init(rng), x, y, Training(0.1, 0.9, 0.0, 1, 20), rng)
assert np.isfinite(facts["loss"])
peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())  # ru_maxrss is the parent's after a fork
print(json.dumps({"rss": int(peak[1]) / 1e3}))
"""


def told(script: str, *words: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_thousand_times_the_clients_take_a_tenth_more_memory_at_most(tmp_path):
    few = told(ROUNDS_OF_A_POPULATION, str(tmp_path / "few"), "100")
    many = told(ROUNDS_OF_A_POPULATION, str(tmp_path / "many"), "100000")
    assert many["rss"] < 1.1 * few["rss"], (few, many)
    assert many["record"] < 1.1 * few["record"]


def test_a_client_process_trains_a_lenet_in_half_a_gigabyte():
    assert told(LENET)["rss"] < 500


OPENED_AND_JUDGED = """
import json, os, sys
from pathlib import Path
import numpy as np, psutil
from fedcore.config import DataConfig, load_config
from fedcore.data.described import described
from fedcore.data.schema import Schema
from fedcore.plan import build_plan
from fedcore.session import features_tree
from fedcore.simulation import open_fleet
from fedcore.types import Task

sites, number = Path(sys.argv[1]), int(sys.argv[2])
config = load_config(overrides=("model.framework=numpy", "model.name=logistic", "run.memory_mb=1"))
schema = Schema("s", "classification", "y", ("0", "1"), shape=(784,))
sites.mkdir(parents=True)
schema.save(sites)
rng = np.random.default_rng(0)
np.savez(sites / "rows.npz", x=rng.normal(size=(8, 784)), y=np.array(["0", "1"] * 4))
names = tuple(f"client-{i:06d}" for i in range(number))
for name in names:
    (sites / name).mkdir()
    os.link(sites / "rows.npz", sites / name / "rows.npz")
fleet = open_fleet(config, sites, names)
features, rows, _ = described(fleet, "r", schema, DataConfig())
tree = features_tree(features)
plan = build_plan(config, rows, schema, tree, "r")
metrics, _ = plan.summarize(fleet.ask(Task("evaluate", "r", 0, np.zeros(785, np.float32), tree), names), 0)
assert metrics["auc"] == 0.5 and len(rows) == number, metrics
print(json.dumps({"rss": psutil.Process().memory_info().rss / 1e6}))
"""


def test_describing_and_judging_hold_a_few_numbers_a_client(tmp_path):
    few = told(OPENED_AND_JUDGED, str(tmp_path / "few"), "100")
    many = told(OPENED_AND_JUDGED, str(tmp_path / "many"), "5000")
    assert many["rss"] < 1.1 * few["rss"], (few, many)  # 5,000 pairs of score histograms alone are 327 MB
