"""The sites of the small digits, and private rounds whose clients send what a test says."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pytest

from fedcore.config import load_config
from fedcore.data.features import Features, Scale
from fedcore.data.schema import Schema
from fedcore.plan import build_plan
from fedcore.redteam.trial import Memory
from fedcore.round import Known, run_steps
from fedcore.session import features_tree
from fedcore.state import Plan, State
from fedcore.types import Reply, Task

PRIVATE = (
    "combine.weights=equal",
    "local.algorithm=sgd",
    "privacy.mode=central",
    "privacy.max_noise_ratio=1e6",
    "privacy.noise=seeded",
    "privacy.delta=1e-3",
    "privacy.evaluation=off",
    "model.framework=numpy",
    "model.name=logistic",
    "model.hidden=[]",
)


class Scripted:
    """A fleet whose clients answer as the script says; None: not at all."""

    def __init__(self, script: Callable[[Task, str], Reply | None]) -> None:
        self.clients: Sequence[str] = ()
        self._script = script

    def ask(self, task: Task, clients: Sequence[str]) -> Iterator[Reply]:
        assert task.kind == "train", "evaluation is off: nobody may be asked"
        for client in clients:
            if (reply := self._script(task, client)) is not None:
                yield reply


@pytest.fixture
def sites(workdir):
    return workdir / "data/sites"


@pytest.fixture
def names(sites) -> tuple[str, ...]:
    return tuple(sorted(folder.name for folder in sites.iterdir() if folder.is_dir()))


@pytest.fixture(scope="session")
def private_plan() -> Callable[..., Plan]:
    """Makes a private plan for so many clients and a model of `size` parameters, with overrides."""

    def make(*overrides: str, clients: int = 4, size: int = 4) -> Plan:
        wide = size - 1
        schema = Schema("s", "classification", "y", ("0", "1"), shape=(wide,))
        scale = Scale("x", (0.0,) * wide, (1.0,) * wide, (0.0,) * wide)
        features = features_tree(Features((scale,), (), shape=(wide,)))
        rows = {f"c{i:04d}": 10 for i in range(clients)}
        return build_plan(load_config(overrides=(*PRIVATE, *overrides)), rows, schema, features, "r")

    return make


@pytest.fixture(scope="session")
def private_round() -> Callable[..., Known]:
    """Plays a round of a plan, from zero or a given state, up to a step."""

    def play(
        plan: Plan,
        script: Callable[[Task, str], Reply | None] | Mapping[str, Reply | None],
        state: State | None = None,
        until: str = "record",
        size: int = 4,
    ) -> Known:
        model = np.zeros(size, np.float32)
        start = State("r", 0, model, plan.optimizer.init(model)) if state is None else state
        answers = script if callable(script) else lambda task, client: script.get(client)
        return run_steps(start, plan, Scripted(answers), Memory(), None, until)

    return play
