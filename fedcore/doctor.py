"""What is installed and found on this machine, so that a person knows which parts will work."""

import importlib.metadata
import os
import platform
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

_PARTS: Mapping[str, str] = {
    "numpy": "numpy",
    "torch (extra torch)": "torch",
    "dp-accounting (privacy)": "dp-accounting",
    "great-expectations (data)": "great-expectations",
    "dvc (data)": "dvc",
    "apache-airflow (airflow)": "apache-airflow",
    "mlflow (tracking)": "mlflow",
    "onnx (export)": "onnx",
    "onnxruntime (edge)": "onnxruntime",
    "tuf (edge)": "tuf",
}


def examine() -> dict[str, str | None]:
    """Version or place of each part, None for one that is missing."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    found |= {label: _version(name) for label, name in _PARTS.items()}
    found |= {tool: shutil.which(tool) for tool in ("git", "dvc", "airflow", "mlflow")}
    found["FEDCORE_DATA"] = os.environ.get("FEDCORE_DATA")
    free = shutil.disk_usage(Path.cwd()).free
    return found | {"free space here": f"{free / 1e9:.1f} GB", "temporary folder": tempfile.gettempdir()}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
