"""`dvc repro` alone gives the whole result, again does nothing, and experiments compare."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SMALL = """\
seed: 1
run: {rounds: 2}
data: {name: flights, months: [1], sites: [HA, OO, F9, AS]}
checks: {min_rows: 20, docs: false}
model: {framework: torch, name: mlp, hidden: [8]}
local: {lr: 0.1, epochs: 1}
cohort: {min_clients: 2}
combine: {rule: mean}
server: {optimizer: sgd}
privacy: {mode: none}
evaluate: {every: 1}
edge: {parity: 0.0001}
tracking: {experiment: test}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A project of its own with the repository's pipelines and four airlines, in git and DVC."""
    root, place = Path(__file__).parent.parent, tmp_path_factory.mktemp("project")
    shutil.copytree(root / "pipelines", place / "pipelines")
    shutil.copy(root / "dvc.yaml", place)
    (place / "params.yaml").write_text(SMALL)
    (place / ".gitignore").write_text("/data/\n/runs/\n/models/\n/reports/docs/\n/reports/rounds/\n")
    for command in (
        ["git", "init", "-q"],
        ["dvc", "init", "-q"],
        ["git", "add", "."],
        ["git", "commit", "-qm", "start"],
    ):
        run(place, *command)
    for name in ("HA", "OO", "F9", "AS", "project"):
        run(place, "dvc", "remote", "add", name, str(place.parent / "remotes" / name))
    run(place, "dvc", "remote", "default", "project")
    return place


def run(place: Path, *command: str) -> str:
    """Standard output of a command in the project, with this interpreter's programs first on the path."""
    own = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
    author = {
        f"GIT_{who}_{what}": "test@example.org"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    done = subprocess.run(
        command,
        cwd=place,
        env=os.environ | own | author,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_pipeline_runs_repeats_pushes_and_compares(project):
    first = run(project, "dvc", "repro")
    assert "Running stage 'train'" in first
    made = [
        "models/federated/model.safetensors",
        "models/edge/model.onnx",
        "reports/compare.png",
        "reports/rounds.csv",
    ]
    assert [name for name in made if not (project / name).exists()] == []
    checks = json.loads((project / "reports/checks.json").read_text())["sites"]
    assert [site for site, result in checks.items() if not result["passed"]] == ["OO"]
    assert "Running stage" not in run(project, "dvc", "repro")

    run(project, "dvc", "push")
    assert all(any((project.parent / "remotes" / site).rglob("*")) for site in ("HA", "F9", "AS"))

    run(project, "git", "add", ".")
    run(project, "git", "commit", "-qm", "first result")
    before = json.loads((project / "reports/metrics.json").read_text())
    run(project, "dvc", "exp", "run", "-S", "local.lr=0.05", "--name", "slower")
    shown = json.loads(run(project, "dvc", "exp", "show", "--json"))
    after = json.loads((project / "reports/metrics.json").read_text())
    assert after["loss"] != before["loss"]
    assert "slower" in json.dumps(shown)
    assert "0.05" in run(project, "dvc", "params", "diff")
