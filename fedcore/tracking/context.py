"""Where a run happens: git, DVC and Airflow ids as tags. Reads the surroundings, writes nothing.

The code's revision, the revision that last changed ``dvc.lock`` and the task that runs us are
what one needs to find a model's origin again. Something that is not there gives no tag.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import fedcore

AIRFLOW = {
    "AIRFLOW_CTX_DAG_ID": "airflow.dag_id",
    "AIRFLOW_CTX_DAG_RUN_ID": "airflow.dag_run_id",
    "AIRFLOW_CTX_TASK_ID": "airflow.task_id",
    "AIRFLOW_CTX_TRY_NUMBER": "airflow.try_number",
    "DVC_EXP_NAME": "dvc.experiment",
}


def surroundings(folder: Path = Path(), environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Tags: `folder`'s git and DVC revisions, the Airflow task or DVC experiment, fedcore's version."""
    tags = {"fedcore.version": fedcore.__version__}
    tags |= {name: environment[key] for key, name in AIRFLOW.items() if environment.get(key)}
    commit = _git(folder, "rev-parse", "HEAD")
    if commit:
        tags["mlflow.source.git.commit"] = tags["git.commit"] = commit
    if commit and (folder / "dvc.lock").exists():
        tags |= {"dvc.rev": _git(folder, "rev-list", "-1", "HEAD", "--", "dvc.lock") or "uncommitted"}
    return tags


def _git(folder: Path, *words: str) -> str:
    """What git prints, or nothing where git or a repository is missing."""
    program = shutil.which("git")
    if program is None:
        return ""
    try:
        done = subprocess.run(
            [program, "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
