"""What a person gets wrong about models, rows and labels ends in one sentence; what is only unusual works."""

import numpy as np
import pytest

from fedcore.cli import main
from fedcore.coordinator import records, simulate
from fedcore.errors import TooFewClients

MODELS = """
import torch

def narrow(shape, outputs):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(10, outputs))

def few(shape, outputs):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
"""


@pytest.fixture
def command(root, tmp_path, monkeypatch, capsys):
    """Runs ``fedcore simulate`` on the digits or `words`; its exit code and standard error."""
    (tmp_path / "badmodels.py").write_text(MODELS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(root)

    def run(workdir, *overrides: str) -> tuple[int, str]:
        chosen = ("run.rounds=2", "data.partition.clients=4", "tracking.enabled=false", *overrides)
        with pytest.raises(SystemExit) as ended:
            main(
                [
                    "simulate",
                    "--preset",
                    "digits",
                    "--workdir",
                    str(workdir),
                    *(w for o in chosen for w in ("-S", o)),
                ]
            )
        return int(ended.value.code or 0), capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("factory", "why"),
    [
        (
            "narrow",
            r"model: fails on rows of shape (8, 8) (mat1 and mat2 shapes cannot be multiplied (2x64 and 10x10)",
        ),
        ("few", "model: must return shape (2, 10), returns (2, 3)"),
    ],
)
def test_a_model_that_does_not_fit_the_rows_is_named_before_anyone_trains(command, workdir, factory, why):
    code, said = command(workdir, "model.framework=torch", f"model.factory=badmodels:{factory}")
    assert code == 2
    assert said.startswith(f"fedcore: {why}")
    assert said.count("\n") == 1
    assert not (workdir / "runs/digits/model").exists()


def arrays(folder, shapes, labels=3):
    """A folder of three sites whose rows have these shapes."""
    rng = np.random.default_rng(1)
    for number, shape in enumerate(shapes):
        folder.mkdir(exist_ok=True)
        y = np.array([str(label) for label in rng.integers(0, labels, 60)])
        np.savez(folder / f"site{number}.npz", x=rng.random((60, *shape)).astype(np.float32), y=y)
    chosen = ("data.name=own", "data.label=y", "data.partition.scheme=natural", "run.rounds=1")
    more = ("tracking.enabled=false", f"data.path={folder}")
    return [word for override in (*chosen, *more) for word in ("-S", override)]


def test_a_client_whose_rows_have_another_shape_is_left_out_with_both_shapes(
    root, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(root)
    own = arrays(tmp_path / "own", [(8, 8), (8, 8), (6, 6)])
    with pytest.raises(SystemExit) as ended:
        main(["simulate", "--preset", "digits", "--workdir", str(tmp_path / "runs"), *own])
    assert ended.value.code in (None, 0)
    said = capsys.readouterr().out
    assert "left out     site2: rows of x have shape (6, 6), expected (8, 8)" in said
    assert "1 rounds, all rounds done" in said


def test_a_client_with_fewer_rows_than_a_batch_trains_on_all_of_them_at_once(new_workdir, settings):
    huge, whole = new_workdir("huge"), new_workdir("whole")
    first = simulate(settings("local.batch_size=1000000"), huge, "a")
    assert first.model_sha256 == simulate(settings("local.batch_size=1797"), whole, "a").model_sha256


def test_a_round_that_nobody_can_join_says_why(workdir, settings):
    config = settings("cohort.min_clients=4", "run.rounds=1")
    simulate(config, workdir, "b")
    assert len(records(workdir, "b")) == 1
    next((workdir / "data/sites/client-001").iterdir()).write_bytes(b"garbage")
    with pytest.raises(
        TooFewClients, match=r"1 refused such as client-001 \(.*client-001.*\), needs at least 4"
    ):
        simulate(settings("cohort.min_clients=4", "run.rounds=2"), workdir, "b")
