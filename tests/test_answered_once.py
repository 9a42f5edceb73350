"""A client shows one view of an update, even where its process is killed and another one goes on."""

import json
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from fedcore.config import config_tree
from fedcore.coordinator import open_run, records, simulate
from fedcore.local.client import Client
from fedcore.local.kept import ANSWERED
from fedcore.session import session
from fedcore.store import Store
from fedcore.types import Task

NOISED = (
    "privacy.mode=local",
    "privacy.noise=system",
    "privacy.noise_multiplier=0.5",
    "privacy.delta=0.01",
    "privacy.epsilon=1e6",
    "combine.weights=equal",
    "model.name=logistic",
    "model.hidden=[]",
)
# Answers round 0 and dies before anybody heard of it, as in a power cut.
DYING = """
import json, os, signal, sys
from pathlib import Path
import numpy as np
from fedcore.config import config_from
from fedcore.local.client import Client
from fedcore.types import Task

config, features, size, sites, kept = json.loads(sys.stdin.read())
client = Client("client-001", Path(sites), config_from(config), Path(kept))
assert client.answer(Task("train", "a", 0, np.zeros(size, np.float32), features)).vector is not None
os.kill(os.getpid(), signal.SIGKILL)
"""


@contextmanager
def opened(workdir, config):
    open_run(config, workdir, "a")
    with Store.at(workdir) as store, session(store, "a") as found:
        yield found


def ask(client, found, number):
    return client.answer(Task("train", "a", number, found.state(0).model, found.plan.features))


def test_a_client_that_was_killed_after_it_answered_does_not_answer_that_round_again(
    workdir, settings, tmp_path
):
    config, sites = settings(*NOISED), workdir / "data/sites"
    with opened(workdir, config) as found:
        facts = [
            config_tree(config),
            found.plan.features,
            found.state(0).model.size,
            str(sites),
            str(tmp_path),
        ]
        done = subprocess.run(
            [sys.executable, "-c", DYING], check=False, input=json.dumps(facts), text=True, timeout=120
        )
        assert done.returncode == -signal.SIGKILL
        restarted = Client("client-001", sites, config, tmp_path)
        again, following = ask(restarted, found, 0), ask(restarted, found, 1)
    assert again.vector is None
    assert "answered round 0 of run a before" in again.error
    assert following.vector is not None


@pytest.mark.parametrize(
    "mode",
    [(), ("privacy.mode=record", "privacy.unit=record", "privacy.delta=1e-3")],
    ids=["local", "record"],
)
def test_processes_of_one_client_share_what_was_answered(workdir, settings, tmp_path, mode):
    config, sites = settings(*NOISED, *mode), workdir / "data/sites"
    with opened(workdir, config) as found:
        one, other = (Client("client-001", sites, config, tmp_path) for _ in range(2))
        assert ask(one, found, 3).vector is not None
        assert "answered round 3 of run a before" in ask(other, found, 3).error
        assert "answered round 2 of run a before" in ask(other, found, 2).error
        assert ask(other, found, 4).vector is not None
        assert "answered round 4 of run a before" in ask(one, found, 4).error


def test_a_client_that_cannot_read_what_it_answered_answers_nothing(workdir, settings, tmp_path):
    config, sites = settings(*NOISED), workdir / "data/sites"
    with opened(workdir, config) as found:
        client = Client("client-001", sites, config, tmp_path)
        (tmp_path / "client-001").mkdir()
        (tmp_path / "client-001" / ANSWERED).write_text("[1")
        assert ask(client, found, 0).vector is None


def test_a_client_that_cannot_keep_that_it_answers_answers_nothing(workdir, settings, tmp_path):
    config, sites = settings(*NOISED), workdir / "data/sites"
    with opened(workdir, config) as found:
        (tmp_path / "client-001").write_text("no folder")
        assert ask(Client("client-001", sites, config, tmp_path), found, 0).vector is None


def test_a_run_keeps_what_its_clients_answered_beside_it(workdir, settings):
    simulate(settings(*NOISED, "run.rounds=2"), workdir, "a")
    kept = sorted((workdir / "runs/a/clients").glob(f"*/{ANSWERED}"))
    assert len(kept) == 4
    assert {file.read_text() for file in kept} == {'{"a":1}'}
    assert {file.stat().st_mode & 0o777 for file in kept} == {0o600}
    assert all(len(record.replied) == 4 for record in records(workdir, "a"))
