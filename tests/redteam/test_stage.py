"""The DVC stage: its own file, its own lock; a plain ``dvc repro`` does not run it."""

import json
import os
import shutil
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
STAGE = "pipelines/robustness/dvc.yaml"


@pytest.fixture
def project(root, tmp_path):
    """A folder with the repository's pipelines in git and DVC, and a smaller matrix."""
    shutil.copytree(root / "pipelines", tmp_path / "pipelines")
    shutil.copytree(root / "params", tmp_path / "params")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(root / name, tmp_path)
    stage = (tmp_path / STAGE).read_text(encoding="utf-8")
    for name, value in {"rules": "mean,median", "attacks": "sign_flip", "settings": "5/1:iid"}.items():
        stage = "\n".join(
            f"{line.partition(':')[0]}: {value}" if line.strip(" -").startswith(f"{name}:") else line
            for line in stage.split("\n")
        )
    (tmp_path / STAGE).write_text(stage, encoding="utf-8")
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"]):
        run(tmp_path, *command)
    return tmp_path


def run(place, *command):
    own = {"PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}  # noqa: PTH120
    done = subprocess.run(
        command, cwd=place, capture_output=True, text=True, check=False, env={**os.environ, **own}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_stage_leaves_numbers_and_a_picture_and_runs_once(project):
    run(project, "dvc", "repro", STAGE)
    shown = json.loads((project / "reports/robustness/robustness.json").read_text(encoding="utf-8"))
    assert {standing["rule"] for standing in shown["ranking"]} == {"mean", "median"}
    assert (project / "reports/robustness/robustness.png").stat().st_size > 1000
    assert "didn't change" in run(project, "dvc", "repro", STAGE)


def test_a_plain_repro_does_not_run_it(project):
    assert "robustness" not in run(project, "dvc", "stage", "list", "--name-only", "dvc.yaml")
    assert "robustness" in run(project, "dvc", "stage", "list", "--name-only", STAGE)
