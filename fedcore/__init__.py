"""Federated learning that can be operated.

`fedcore.round` is the place to start reading: a whole round is there. Names below are
loaded on first use, so that ``import fedcore`` stays cheap on a phone.
"""

from importlib import import_module
from typing import Any

from fedcore.processor import choose_kernels

choose_kernels()  # before anything here imports numpy

__version__ = "0.1.0"

_HOMES = {
    "Config": "fedcore.config",
    "load_config": "fedcore.config",
    "FedcoreError": "fedcore.errors",
    "RoundRecord": "fedcore.types",
    "build_plan": "fedcore.plan",
    "run_round": "fedcore.round",
    "simulate": "fedcore.coordinator",
}

__all__ = [*_HOMES, "__version__"]  # pyright: ignore  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fedcore' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
