"""Private runs from start to end: every mode and mechanism trains, and goes on after a kill in the same bytes."""

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from fedcore.coordinator import advance, open_run, records, simulate
from fedcore.errors import RunConflict
from fedcore.ledger import entries
from fedcore.local.client import Client
from fedcore.session import held, session
from fedcore.store import Store
from fedcore.types import Task

PRIVATE = (
    "combine.weights=equal",
    "privacy.delta=0.01",
    "privacy.noise=seeded",
    "privacy.noise_multiplier=0.5",
    "privacy.epsilon=1e6",
    "privacy.max_noise_ratio=1e6",
    "run.rounds=3",
    "model.framework=numpy",
    "model.name=logistic",
    "model.hidden=[]",
)
CENTRAL = (*PRIVATE, "privacy.mode=central")
ADAPTIVE = (*CENTRAL, "privacy.clipping=adaptive", "privacy.count_noise=1", "privacy.clip=0.01")
LOCAL = (*PRIVATE, "privacy.mode=local")
ROLLING = ("evaluate.rollback_factor=1.0000001", "server.lr=20")


def everything(workdir: Path) -> dict[str, str]:
    """Digests of what must not depend on how the run went."""
    folder = workdir / "runs/a"
    files = [*sorted((folder / "model").iterdir()), folder / "records.jsonl"]
    found = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    with Store.at(workdir) as store:
        told = [{k: e[k] for k in ("account", "kind", "run", "round", "body")} for e in entries(store)]
    return found | {"ledger": json.dumps(told)}


def step_by_step(workdir: Path, config, rounds: int = 3) -> None:
    """A run of which each step is done by a process's first look at the work directory."""
    open_run(config, workdir, "a")
    for number in range(rounds):
        for step in ("select", "ask", "combine", "release", "record"):
            advance(workdir, "a", number, step)
    simulate(config, workdir, "a")


@pytest.mark.parametrize(
    "overrides",
    [ADAPTIVE, (*ADAPTIVE, *ROLLING, "server.lr=3000"), LOCAL],
    ids=["adaptive", "rolling", "local"],
)
def test_step_by_step_ends_in_the_bytes_of_the_whole(new_workdir, settings, overrides):
    config = settings(*overrides)
    whole, stepped = new_workdir("whole"), new_workdir("stepped")
    simulate(config, whole, "a")
    step_by_step(stepped, config)
    assert everything(whole) == everything(stepped)


def test_the_clip_is_carried_and_recorded_even_where_the_model_is_rolled_back(workdir, settings):
    simulate(settings(*ADAPTIVE, *ROLLING, "server.lr=3000", "run.rounds=4"), workdir, "a")
    found = records(workdir, "a")
    assert {record.verdict for record in found} == {"keep", "rollback"}
    assert found[0].clip == 0.01
    assert len({record.clip for record in found}) == 4


def test_a_local_client_shows_nothing_but_its_noisy_update_and_only_once(workdir, settings):
    config = settings(*LOCAL, "privacy.noise=system")
    open_run(config, workdir, "a")
    with Store.at(workdir) as store, session(store, "a") as opened:
        client = Client("client-001", workdir / "data/sites", config)
        task = Task("train", "a", 1, opened.state(0).model, opened.plan.features)
        first, second = client.answer(task), client.answer(task)
        other = Client("client-001", workdir / "data/sites", config).answer(task)
    assert first.facts == other.facts == second.facts == {}
    assert first.vector is not None
    assert other.vector is not None
    shared = np.intersect1d(first.vector, other.vector).size
    assert shared < 5  # 650 float32 numbers each: five meet by chance once in 10^8 times
    assert second.vector is None
    assert second.error is not None
    assert "answered round 1 of run a before" in second.error


def test_training_that_diverges_does_not_show_under_local_privacy(workdir, settings):
    with np.errstate(all="ignore"):
        simulate(settings(*LOCAL, "local.lr=1e30", "run.rounds=1", "privacy.evaluation=off"), workdir, "a")
    (record,) = records(workdir, "a")
    assert record.refused == {}
    assert (record.metrics, record.client_metrics, record.verdict) == ({}, {}, "keep")
    assert record.epsilon is not None


@pytest.mark.parametrize("mechanism", ["laplace", "discrete_gaussian", "skellam"])
def test_every_central_mechanism_trains(workdir, settings, mechanism):
    config = settings(*CENTRAL, f"privacy.mechanism={mechanism}", "run.rounds=1", "privacy.evaluation=off")
    open_run(config, workdir, "a")
    advance(workdir, "a", 0, "release")


def test_correlated_noise_belongs_to_a_number_of_rounds(workdir, settings):
    tree = (*CENTRAL, "privacy.mechanism=tree")
    open_run(settings(*tree), workdir, "a")
    with pytest.raises(RunConflict, match="rounds was 3, now 4"):
        open_run(settings(*tree, "run.rounds=4"), workdir, "a")


def test_correlated_noise_takes_back_what_it_added_even_after_a_rollback(workdir, settings):
    """Banded noise in rounds 0 … 2 of one stream: what is added is C⁻¹ z, whichever model was kept."""
    config = settings(*CENTRAL, "privacy.mechanism=tree", *ROLLING)
    open_run(config, workdir, "a")
    noises = []
    with held(workdir, "a") as opened:
        noise, size = opened.plan.noise, opened.state(0).model.size
        assert noise is not None
        for number in range(3):
            known = opened.advance(number)
            released, before = known.arrays("release"), opened.state(number)
            mean = released["model"].astype(np.float64) - before.model
            total = known.arrays("combine")["sum"]
            noises.append((mean / 20 * noise.expected_cohort - total) / noise.deviation)
        fresh = [noise.normal(number)(size) for number in range(3)]
    np.testing.assert_allclose(noises[0], fresh[0], atol=1e-4)
    np.testing.assert_allclose(noises[1], fresh[1] - fresh[0], atol=1e-4)
    np.testing.assert_allclose(noises[2], fresh[2], atol=1e-4)


def crash_after(events: int) -> None:
    """Kill this process, as the system would, at its `events`-th touch of a file or database."""
    left = [events]

    def watch(event: str, _: object) -> None:
        if event in ("open", "os.rename", "os.link", "os.remove", "os.mkdir", "sqlite3.connect"):
            left[0] -= 1
            if left[0] <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def run_and_die(workdir: Path, config: object, events: int) -> bool:
    """Whether a run in a process of its own was killed at that event (False: it finished)."""
    child = os.fork()
    if child == 0:
        try:
            crash_after(events)
            simulate(config, workdir, "a")  # type: ignore[arg-type]
            os._exit(0)
        except BaseException:
            os._exit(3)
    status = os.waitpid(child, 0)[1]
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0, "the run failed by itself"
    return os.WIFSIGNALED(status)


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [ADAPTIVE, LOCAL, (*CENTRAL, "privacy.mechanism=banded", "cohort.sampling=cyclic", "privacy.bands=2")],
    ids=["adaptive", "local", "banded"],
)
def test_killed_at_touches_of_the_disk_it_ends_in_the_same_bytes(new_workdir, settings, overrides):
    config = settings(*overrides)
    calm, wild = new_workdir("calm"), new_workdir("wild")
    simulate(config, calm, "a")
    kills, step = 0, 7
    while run_and_die(wild, config, step):
        kills += 1
        step += 9
    assert kills > 5
    assert everything(wild) == everything(calm)
