"""A sweep as DVC experiments: each cell is queued, and ``dvc queue start`` trains them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from fedcore.errors import BadInput, MissingExtra, ServiceError
from fedcore.sweep.cells import Cell

_LONGEST_S = 300


def enqueue(cells: Sequence[Cell], repository: Path, mode: str, overrides: Sequence[str] = ()) -> list[str]:
    """Names of the DVC experiments, queued in `repository` in the order of `cells`.

    `overrides` are ``KEY=VALUE`` laid over ``params.yaml`` in every cell. Raises `BadInput` where
    there is no DVC repository, `ServiceError` if DVC refuses.
    """
    if not (repository / ".dvc").is_dir() or not (repository / "dvc.yaml").is_file():
        raise BadInput(
            f"{repository} is no DVC repository with a dvc.yaml; run 'dvc init' there, or leave --queue out"
        )
    program = _program()
    tree = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8")) or {}
    names = []
    for cell in cells:
        settings = [_setting(tree, text) for text in (*overrides, *_of(cell, mode))]
        name = f"sweep-{cell.label}"
        _run(
            [
                program,
                "exp",
                "run",
                "--queue",
                "--name",
                name,
                *(part for s in settings for part in ("-S", s)),
            ],
            repository,
        )
        names.append(name)
    return names


def _of(cell: Cell, mode: str) -> list[str]:
    if cell.epsilon is None:
        return [f"seed={cell.seed}", "privacy.mode=none"]
    return [
        f"seed={cell.seed}",
        f"privacy.mode={mode}",
        f"privacy.epsilon={cell.epsilon:g}",
        f"privacy.noise_multiplier={cell.noise:g}",
    ]


def _setting(tree: Mapping[str, Any], text: str) -> str:
    """The override as DVC takes it: a key that ``params.yaml`` lacks is added with ``+``."""
    key = text.partition("=")[0]
    node: Any = tree
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return f"+{text}"
        node = node[part]
    return text


def _program() -> str:
    beside = Path(sys.executable).parent / "dvc"
    found = str(beside) if beside.exists() else shutil.which("dvc")
    if found is None:
        raise MissingExtra("dvc", "data")
    return found


def _run(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "DVC_NO_ANALYTICS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=_LONGEST_S,
    )
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise ServiceError(
            f"dvc exp run --queue failed: {' '.join(last)}; mend it and give the command again"
        )
