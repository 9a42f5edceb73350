"""The DVC stage of the audit: its own file, numbers and a picture; it fails where the audit fails."""

import json
import os
import shutil
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
STAGE = "pipelines/privacy/dvc.yaml"


@pytest.fixture
def project(root, tmp_path):
    """A folder with the repository's pipelines in git and DVC, and a smaller audit."""
    shutil.copytree(root / "pipelines", tmp_path / "pipelines")
    shutil.copytree(root / "params", tmp_path / "params")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(root / name, tmp_path)
    stage = (tmp_path / STAGE).read_text(encoding="utf-8")
    smaller = stage.replace("canaries: 200", "canaries: 30").replace("rounds: 20", "rounds: 2")
    assert smaller != stage
    (tmp_path / STAGE).write_text(smaller, encoding="utf-8")
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"]):
        assert run(tmp_path, *command).returncode == 0
    return tmp_path


def run(place, *command):
    own = {"PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}  # noqa: PTH120
    return subprocess.run(
        command, cwd=place, capture_output=True, text=True, check=False, env={**os.environ, **own}
    )


def test_the_stage_leaves_numbers_and_a_picture_and_runs_once(project):
    done = run(project, "dvc", "repro", STAGE)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = json.loads((project / "reports/audit/audit.json").read_text(encoding="utf-8"))
    assert shown["passed"]
    assert set(shown["lower"]) == {"one_run", "f_dp", "gaussian"}
    assert (project / "reports/audit/audit.png").stat().st_size > 1000
    assert "didn't change" in run(project, "dvc", "repro", STAGE).stdout
    assert "audit" not in run(project, "dvc", "stage", "list", "--name-only", "dvc.yaml").stdout


def test_what_the_audit_cannot_do_fails_the_stage_in_a_sentence(project):
    preset = project / "params/digits-private.yaml"
    text = preset.read_text(encoding="utf-8")
    preset.write_text(text.replace("mode: central", "mode: none"), encoding="utf-8")
    done = run(project, "dvc", "repro", STAGE)
    assert done.returncode != 0
    assert "audit: privacy.mode none promises nothing that could be audited" in done.stderr
