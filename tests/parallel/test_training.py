"""Data-parallel training: equal to SGD on the union of all rows, resumable, and honest about lost ranks."""

import json
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from fedcore.adapters.trained import TrainedModel
from fedcore.config import load_config
from fedcore.data.prepare import prepare
from fedcore.errors import BadInput, CorruptState, PeerLost, RunConflict
from fedcore.parallel.__main__ import main
from fedcore.parallel.job import job_of, share
from fedcore.parallel.kept import Epochs, Kept
from fedcore.parallel.server import serve, train_async
from fedcore.parallel.sync import REFUSED, train_sync
from fedcore.parallel.world import REDUCES, Place, World, device_of, joined, place

SMALL = ("data.partition.clients=4", "model.hidden=[8]")
OPTIONS = ["--preset", "digits", "--epochs", "2", *(word for s in SMALL for word in ("-S", s))]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "fedcore.parallel"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
ONE = World(0, 1, torch.device("cpu"), 60)


@pytest.fixture(autouse=True)
def _not_under_torchrun(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "GROUP_RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def make_job(workdir, root):
    def make(*overrides):
        config = load_config(root / "params.yaml", preset="digits", overrides=(*SMALL, *overrides))
        return job_of(config, prepare(config, workdir))

    return make


def nobody(epoch, loss):
    """Progress that is not shown."""


def alone(job, kept=None, progress=nobody):
    return train_sync(job, ONE, REDUCES["ring"], kept, progress)


def command(workdir, *arguments):
    with pytest.raises(SystemExit) as ended:
        main([*OPTIONS, "--workdir", str(workdir), *arguments])
    return ended.value.code or 0


def free_ports(count):
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for bound in sockets:
            bound.bind(("127.0.0.1", 0))
        return [bound.getsockname()[1] for bound in sockets]


def test_a_world_of_one_is_the_clients_sgd_bit_for_bit(make_job):
    job = make_job("local.epochs=1", "local.weight_decay=0.01", "local.batch_size=50")
    job = replace(job, seed=5)
    expected, facts = job.model.train(
        job.start(), job.data.x_train, job.data.y_train, job.settings, job._epoch(0)
    )
    trained = alone(job)
    assert np.array_equal(trained.vector, expected)
    assert trained.losses[0] == pytest.approx(facts["loss"], rel=1e-6)
    assert trained.staleness == {0: trained.steps}


@pytest.mark.parametrize("world", [1, 2, 3, 5, 40])
def test_the_shares_of_a_step_are_its_rows_and_even(world):
    rows = np.arange(17)
    shares = [share(rows, rank, world) for rank in range(world)]
    assert np.array_equal(np.concatenate(shares), rows)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_step_computed_in_uneven_shares_is_the_step_on_the_union(make_job):
    """A rank without rows adds nothing; the mean over rows is weighted by the shares."""
    job = make_job()
    vector, rows = job.start(), np.arange(7)
    loss, whole = job.gradient(vector, rows)
    parts = [(part, *job.gradient(vector, part)) for part in (share(rows, r, 9) for r in range(9))]
    assert min(len(part) for part, _, _ in parts) == 0
    together = sum(gradient * (len(part) / 7) for part, _, gradient in parts)
    np.testing.assert_allclose(together, whole, rtol=1e-5, atol=1e-6)
    assert sum(found * len(part) / 7 for part, found, _ in parts) == pytest.approx(loss, rel=1e-5)


def test_a_training_stopped_anywhere_goes_on_to_the_same_bytes(make_job, tmp_path):
    job = make_job("local.epochs=4")
    kept = Kept(tmp_path / "kept", "same")

    def stop(epoch, loss):
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        alone(job, kept, stop)
    seen = []
    resumed = alone(job, kept, lambda epoch, loss: seen.append(epoch))
    undisturbed = alone(job)
    assert seen == [3, 4]
    assert np.array_equal(resumed.vector, undisturbed.vector)
    assert resumed.losses == undisturbed.losses
    assert [file.name for file in kept.folder.iterdir()] == ["epoch-000004.safetensors"]


def test_kept_epochs_of_other_settings_or_broken_ones_are_refused(tmp_path):
    vector = np.zeros(3, np.float32)
    Kept(tmp_path, "mine").keep(Epochs(vector, vector, (0.5,)))
    with pytest.raises(RunConflict, match="choose another --name"):
        Kept(tmp_path, "yours").latest()
    (tmp_path / "epoch-000001.safetensors").write_bytes(b"half")
    with pytest.raises(CorruptState, match="not a kept epoch"):
        Kept(tmp_path, "mine").latest()


def test_other_ranks_end_where_rank_0_refuses_what_it_kept(make_job):
    class Second(World):
        def from_first(self, values):
            values.fill_(REFUSED)

    with pytest.raises(BadInput, match="rank 0 cannot go on"):
        train_sync(make_job(), Second(1, 2, torch.device("cpu"), 1), REDUCES["ring"], None, nobody)


def test_a_training_that_diverges_says_where(make_job):
    with (
        pytest.raises(
            BadInput, match=r"diverged in epoch 1: the loss is \w+; lower local.lr, which is 1e\+30"
        ),
        np.errstate(all="ignore"),
    ):
        alone(make_job("local.lr=1e30"))


def test_a_server_says_the_loss_that_diverged_whatever_came_after_it(make_job):
    """The other worker's finite loss arrives while the server tells all that training is over."""

    class Arrivals(World):
        def __init__(self):
            super().__init__(0, 3, torch.device("cpu"), 1)
            self.said, self.told = [(1, [0, 0, 16], float("inf")), (2, [0, 1, 16], 2.25)], []

        def receive(self, into, source=None):
            sender, header, loss = self.said[0]
            if len(into) == 3:
                into[:] = torch.tensor(header)
            else:
                into[-1] = loss
                self.said.pop(0)
            return sender

        def send(self, values, to):
            self.told.append((values.tolist()[1], to))

    world = Arrivals()
    with pytest.raises(BadInput, match="in epoch 1: the loss is inf;"):
        serve(make_job(), world, nobody)
    assert world.told == [(-2, 1), (-2, 2)]


def test_asynchronous_training_needs_a_worker(make_job):
    with pytest.raises(BadInput, match="got 1 process"):
        train_async(make_job(), ONE, nobody)


def test_three_processes_train_the_model_of_one_and_notice_a_lost_rank(workdir, make_job, capfd):
    ports, context = free_ports(7), get_context("spawn")
    script = str(Path(__file__).parent / "ranks.py")
    start = [
        context.Process(target=runpy.run_path, args=(script, {"place": (rank, ports, str(workdir), OPTIONS)}))
        for rank in range(3)
    ]
    for process in start:
        process.start()
    for process in start:
        process.join(120)
    told = capfd.readouterr()
    assert [process.exitcode for process in start] == [0, 0, 9], told.err
    one = alone(make_job("local.epochs=2"))
    for name in ("ring", "library"):
        model = TrainedModel.load(workdir / "parallel" / name / "model")
        np.testing.assert_allclose(model.vector, one.vector, rtol=1e-3, atol=1e-4)
    facts = json.loads(next(line for line in told.out.splitlines() if line.startswith("{")))
    assert (facts["backend"], facts["world"], facts["reduce"]) == ("gloo", 3, "library")
    assert facts["metrics"]["accuracy"] > 0.8
    assert re.search(r"training     async, 3 processes over gloo on cpu", told.out)
    assert re.search(r"staleness    [\d.]+ steps in the mean, \d+ at most", told.out)
    said = [line for line in told.err.splitlines() if line.startswith("fedcore:")]
    assert [re.sub(r"the loss is \w+", "the loss is", line) for line in said] == [
        "fedcore: rank 2 holds another configuration than rank 0; start all ranks with the same command, "
        "parameters, data and versions",
        "fedcore: training diverged in epoch 1: the loss is; lower local.lr, which is 1e+30",
    ]


def test_one_process_trains_by_the_command_and_the_same_command_ends_at_once(workdir, capsys):
    assert command(workdir, "--json") == 0
    first = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (first["world"], first["backend"], first["epochs"]) == (1, "none", 2)
    assert command(workdir, "--json") == 0
    told = capsys.readouterr()
    again = json.loads(told.out.splitlines()[-1])
    assert again["model_sha256"] == first["model_sha256"]
    assert "epoch" not in told.err
    assert command(workdir, "--epochs", "3") == 0
    assert capsys.readouterr().err.startswith("epoch 3/3")
    assert command(workdir, "--lr", "0.2") == 5
    assert "holds epochs of other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--mode", "asink"], 2, "unknown mode 'asink'; did you mean 'async'?"),
        (["--reduce", "tree"], 2, "unknown reduce 'tree'"),
        (["--lr", "0"], 2, "local.lr: "),
        (["--name", "../up"], 2, "run.name: --name cannot name a folder"),
        (["-S", "privacy.mode=local"], 2, "privacy.mode local is not kept by data-parallel training"),
        (["-S", "local.algorithm=scaffold"], 2, "set local.algorithm=sgd"),
        (["-S", "local.steps=3"], 2, "local.steps 3 is a client's round"),
        (["-S", "checks.min_rows=100000"], 2, "no site's data can be used"),
    ],
)
def test_a_mistake_is_one_sentence(workdir, capsys, arguments, code, sentence):
    assert command(workdir, *arguments) == code
    told = capsys.readouterr().err
    assert sentence in told
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({"RANK": "0"}, "WORLD_SIZE is not set"),
        ({"RANK": "x", "WORLD_SIZE": "2", "MASTER_ADDR": "h", "MASTER_PORT": "1"}, "holds no number"),
        ({"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "h", "MASTER_PORT": "1"}, "got 2 of 2"),
    ],
)
def test_half_an_environment_is_refused(monkeypatch, environment, why):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadInput, match=why):
        place()


def test_a_rank_whose_peers_do_not_come_ends_by_itself(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(free_ports(1)[0]))
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(PeerLost, match="rank 0 lost one of 2 processes"), joined(place(), lambda: None, 1, 1):
        pytest.fail("nobody else is there")


def test_sums_are_computed_on_a_device_only_where_every_process_has_its_own(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    devices = torch.cuda.device_count()
    expected = "cuda" if devices >= 2 else "cpu"
    assert device_of(Place(1, 2, 1, 0)).type == expected
    assert World(1, 2, torch.device("cuda"), 1).backend == "nccl"


@pytest.mark.slow
@pytest.mark.chaos
def test_a_rank_killed_under_torchrun_ends_all_and_the_same_command_goes_on(workdir, root):
    log = workdir / "log"
    command = [
        *TORCHRUN,
        *OPTIONS,
        "--workdir",
        str(workdir),
        "--batch",
        "3",
        "--lr",
        "0.003",
        "--epochs",
        "4",
    ]
    kept = workdir / "parallel" / "killed"

    def start(name):
        with log.open("wb") as out:
            return subprocess.Popen(
                [*command, "--name", name, "--timeout", "20"],
                cwd=root,
                env=ENVIRONMENT,
                stdout=out,
                stderr=out,
            )

    running = start("killed")
    while not list(kept.glob("epoch-*")):
        with suppress(subprocess.TimeoutExpired):
            assert running.wait(0.05) is None, log.read_text()
    ranks = {int(child.environ()["RANK"]): child for child in psutil.Process(running.pid).children()}
    ranks[1].send_signal(signal.SIGKILL)
    assert running.wait(60) != 0
    told = [line for line in log.read_text().splitlines() if line.startswith("fedcore:")]
    assert len(told) == 1, log.read_text()
    assert re.match(r"fedcore: rank 0 lost .*; start the same command again", told[0])
    assert start("killed").wait(120) == 0, log.read_text()
    assert "epoch 1/3" not in log.read_text(), "the first epoch was trained again"
    assert start("undisturbed").wait(120) == 0, log.read_text()
    models = [
        workdir / "parallel" / name / "model" / "model.safetensors" for name in ("killed", "undisturbed")
    ]
    assert models[0].read_bytes() == models[1].read_bytes()


@pytest.mark.slow
def test_torchrun_starts_it_and_says_how_to(workdir, root):
    done = subprocess.run(
        [*TORCHRUN, *OPTIONS, "--workdir", str(workdir), "--json"],
        cwd=root,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    facts = json.loads(done.stdout.splitlines()[-1])
    assert (facts["world"], facts["reduce"], facts["epochs"]) == (2, "ring", 2)
    told = subprocess.run(
        [sys.executable, "-m", "fedcore.parallel", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "torchrun --nproc-per-node 2 -m fedcore.parallel" in told.stdout
