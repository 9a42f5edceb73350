"""A table of two algorithms and two settings of the digits, small enough to train in a second."""

import pytest

from fedcore.tables.table import Part, Published, Table

BASE = {
    "run": {"rounds": 3},
    "data": {"name": "digits", "partition": {"scheme": "iid", "clients": 3}},
    "model": {"framework": "numpy", "name": "logistic"},
    "local": {"algorithm": "sgd", "lr": 0.1, "momentum": 0.0, "epochs": 1, "batch_size": 64},
    "tracking": {"enabled": False},
}


def make(**changes) -> Table:
    given = {
        "name": "tiny",
        "title": "Digits among three",
        "source": "nobody",
        "metric": "accuracy",
        "over": "rows",
        "when": "best",
        "base": BASE,
        "rows": (Part("FedAvg", {}), Part("SCAFFOLD", {"local": {"algorithm": "scaffold"}})),
        "columns": (Part("slow", {}), Part("fast", {"local": {"lr": 0.3}})),
        "published": {("FedAvg", "slow"): Published(90.0, 3.0), ("SCAFFOLD", "slow"): Published(99.9, 0.01)},
        "seeds": 2,
        "scale": 100.0,
        "notes": ("Digits are not published so.",),
        **changes,
    }
    return Table(**given)


@pytest.fixture
def table():
    """Makes a table, with changes."""
    return make


@pytest.fixture(scope="session")
def ground(tmp_path_factory):
    """A work directory that tests of whole cells share: data are prepared in it once."""
    return tmp_path_factory.mktemp("tables")
