"""A sweep trains each ε once, says what it cost, and draws on the account it says it does."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fedcore.cli import main
from fedcore.config import Config, load_config
from fedcore.errors import BadConfig, BadInput, MissingExtra, PlanRefused, ServiceError
from fedcore.ledger import entries
from fedcore.privacy.accountant import epsilon
from fedcore.privacy.events import GaussianSum
from fedcore.store import Store
from fedcore.sweep import Asked, Cell, Done, draw, enqueue, noise_for, rows
from fedcore.sweep.cells import cell_config

TINY = (
    "run.rounds=2",
    "data.partition.clients=8",
    "checks.min_rows=2",
    "data.partition.min_rows=2",
    "privacy.delta=0.01",
    "privacy.max_noise_ratio=1000",
    "privacy.clip=0.5",
    "tracking.enabled=false",
)


@pytest.fixture
def private(root: Path) -> Config:
    return load_config(root / "params.yaml", preset="digits-private", overrides=TINY)


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["privacy", "sweep", *arguments])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


@pytest.mark.parametrize("target", [0.5, 4.0])
def test_the_noise_found_spends_the_target_and_little_less(private, target):
    noise = noise_for(private, target)
    spent = epsilon([GaussianSum(noise, 0.3)] * 2, 0.01)
    assert spent <= target
    assert spent > target * 0.995


def test_noisy_evaluations_are_within_the_target_and_cells_without_privacy_have_none(private):
    judged = replace(private, privacy=replace(private.privacy, evaluation="noised", evaluation_noise=2.0))
    noise = noise_for(judged, 4.0)
    releases = [GaussianSum(noise, 0.3), GaussianSum(2.0, 0.3)] * 2
    assert 4.0 * 0.995 < epsilon(releases, 0.01) <= 4.0
    assert noise > noise_for(private, 4.0)
    assert cell_config(judged, Cell(None, 1)).privacy.evaluation == "clear"
    assert cell_config(judged, Cell(4.0, 1, noise)).privacy.evaluation == "noised"


@pytest.mark.parametrize(
    ("change", "error", "why"),
    [
        ({"epsilons": (0.0,)}, BadInput, "ε must be above zero, got 0"),
        ({"epsilons": ()}, BadInput, "no ε is named"),
        ({"seeds": 0}, BadInput, "seeds must be 1 or more, got 0"),
        ({"set": "privacy.mode=none"}, BadConfig, "needs a mode"),
        ({"set": "privacy.evaluation=off"}, BadConfig, "nothing to compare"),
        ({"set": "privacy.evaluation=noised", "also": "data.task=regression"}, BadConfig, "leaves no r2"),
        ({"set": "privacy.clipping=adaptive"}, PlanRefused, "clipping adaptive"),
    ],
)
def test_what_cannot_be_swept_is_refused(change, error, why, root):
    config = load_config(
        root / "params.yaml",
        preset="digits-private",
        overrides=(*TINY, *(change[key] for key in ("set", "also") if key in change)),
    )
    asked = Asked(config, change.get("epsilons", (1.0,)), change.get("seeds", 1))
    with pytest.raises(error, match=why):
        asked.cells(noise_for)


def test_no_target_is_below_zero_for_the_noise_either(private):
    with pytest.raises(BadInput, match="ε must be above zero, got -1"):
        noise_for(private, -1)


def test_a_simulated_cell_has_an_account_of_its_own_and_a_release_the_populations(private, root):
    seeded = load_config(
        root / "params.yaml", preset="digits-private", overrides=(*TINY, "privacy.noise=seeded")
    )
    cell = Cell(2.0, 1, 3.0)
    own, shared = cell_config(seeded, cell).privacy, cell_config(private, cell).privacy
    assert (own.population, own.epsilon) == ("digits-sweep-eps2-s1", 2.0)
    assert (shared.population, shared.epsilon) == (private.privacy.population, private.privacy.epsilon)
    assert own.noise_multiplier == shared.noise_multiplier == 3.0
    assert cell_config(private, Cell(None, 1)).privacy.mode == "none"


def test_a_sweep_trains_draws_and_goes_on(root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(root)
    sets = [
        part
        for text in (*TINY, "privacy.noise=seeded", "cohort.rate=0.9", "cohort.min_clients=1")
        for part in ("-S", text)
    ]
    asked = (
        "--preset",
        "digits-private",
        "--epsilons",
        "8,3",
        "--seeds",
        "1",
        "--workdir",
        str(tmp_path),
        "--json",
    )
    code, out, err = run(capsys, *asked, *sets)
    assert code == 0, err
    told = json.loads(out.splitlines()[-1])
    assert [row["epsilon"] for row in told["rows"]] == [None, 3.0, 8.0]
    assert all(row["spent"] <= row["epsilon"] for row in told["rows"][1:])
    assert told["metric"] == "accuracy"
    assert Path(told["files"]["picture"]).read_bytes().startswith(b"\x89PNG")
    with Store.at(tmp_path) as store:
        charged = entries(store)
        accounts = {str(entry["account"]).split("@")[0] for entry in charged}
    assert accounts == {"digits-sweep-eps3-s1", "digits-sweep-eps8-s1"}
    _, again, _ = run(capsys, *asked, *sets)
    assert json.loads(again.splitlines()[-1])["cells"] == told["cells"]
    with Store.at(tmp_path) as store:
        assert len(entries(store)) == len(charged)


@pytest.mark.slow
def test_cells_of_a_release_share_one_account_and_the_one_too_many_is_refused(
    root, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(root)
    sets = [part for text in (*TINY, "privacy.epsilon=4") for part in ("-S", text)]
    asked = ("--preset", "digits-private", "--epsilons", "3,3.5", "--seeds", "1", "--workdir", str(tmp_path))
    code, out, _ = run(capsys, *asked, *sets)
    assert code == 0
    assert "refused  eps3.5-s1: privacy budget spent" in out
    with Store.at(tmp_path) as store:
        assert len({str(entry["account"]) for entry in entries(store)}) == 1


def test_rows_compare_the_same_seeds():
    found = [
        Done(Cell(None, 1), "a", "accuracy", 0.9),
        Done(Cell(None, 2), "b", "accuracy", 0.8),
        Done(Cell(1.0, 1, 5.0), "c", "accuracy", 0.7, 0.99),
        Done(Cell(1.0, 2, 5.0), "d", refused="spent"),
    ]
    plain, private = rows(found)
    assert (plain.epsilon, plain.seeds, plain.mean) == (None, 2, pytest.approx(0.85))
    assert (private.loss, private.seeds, private.spent) == (pytest.approx(20), 1, 0.99)


def test_a_picture_needs_a_private_cell(tmp_path):
    with pytest.raises(BadInput, match="nothing to draw"):
        draw(rows([Done(Cell(None, 1), "a", "accuracy", 0.9)]), tmp_path / "p.png", "accuracy", "t")


def test_text_that_is_no_number_is_refused(root, monkeypatch, capsys):
    monkeypatch.chdir(root)
    code, _, err = run(capsys, "--preset", "digits-private", "--epsilons", "one,2")
    assert code == 2
    assert "--epsilons 'one,2' are not numbers" in err


def test_a_preset_is_not_queued(root, monkeypatch, capsys):
    monkeypatch.chdir(root)
    sets = [part for text in TINY for part in ("-S", text)]
    code, _, err = run(
        capsys, "--preset", "digits-private", "--epsilons", "3", "--seeds", "1", "--queue", *sets
    )
    assert code == 2
    assert "DVC reads params.yaml alone" in err


def test_a_folder_without_dvc_is_named(tmp_path):
    with pytest.raises(BadInput, match="is no DVC repository"):
        enqueue([Cell(None, 1)], tmp_path, "central")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DVC repository of one stage."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "test")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "test@example.org")
    (tmp_path / "dvc.yaml").write_text("stages:\n  train:\n    cmd: 'true'\n    params: [seed, privacy]\n")
    (tmp_path / "params.yaml").write_text("seed: 1\nprivacy: {mode: none}\n")
    for command in ("git init -q", "dvc init -q", "git add .", "git commit -qm start"):
        subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


@pytest.mark.slow
def test_cells_are_queued_as_dvc_experiments(repository):
    names = enqueue([Cell(None, 1), Cell(1.5, 2, 6.0)], repository, "central", ["privacy.delta=0.01"])
    assert names == ["sweep-plain-s1", "sweep-eps1.5-s2"]
    shown = subprocess.run(
        ["dvc", "queue", "status"], cwd=repository, check=True, capture_output=True, text=True
    )
    assert all(name in shown.stdout for name in names)
    with pytest.raises(ServiceError, match="dvc exp run --queue failed"):
        enqueue([Cell(None, 1)], repository, "central", ["seed=[1"])


def test_without_dvc_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "params.yaml").write_text("seed: 1\n")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtra, match=r"dvc is not installed.*\[data\]"):
        enqueue([Cell(None, 1)], tmp_path, "central")
