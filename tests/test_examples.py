"""The examples do what their first lines say, and the shortest one gives fedcore's own bytes."""

import hashlib
import runpy
from pathlib import Path

import pytest

from fedcore.config import load_config
from fedcore.coordinator import records, simulate
from fedcore.data.prepare import prepare
from fedcore.errors import BadConfig

FEDAVG = Path("examples/fedavg_in_100_lines.py")
AS_IN_THE_EXAMPLE = ("model.hidden=[32]", "local.epochs=2", "run.rounds=3")


@pytest.fixture
def own(root, tmp_path, monkeypatch):
    """The table of the example, and settings for it with overrides."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(root / "examples")
    monkeypatch.setattr("sys.argv", ["own_data.py"])
    runpy.run_path(str(root / "examples" / "own_data.py"), run_name="__main__")

    def load(*overrides: str):
        fixed = ("run.rounds=2", "tracking.enabled=false", "checks.docs=false")
        return load_config(root / "examples" / "own.yaml", overrides=(*fixed, *overrides))

    return load


def test_fedavg_in_100_lines_gives_the_bytes_of_fedcore(root, workdir, settings):
    simulate(settings(*AS_IN_THE_EXAMPLE), workdir, "digits")
    ours = records(workdir, "digits")
    fedavg = runpy.run_path(str(root / FEDAVG))["fedavg"]
    theirs = list(fedavg(workdir / "data" / "sites", rounds=3))
    assert [hashlib.sha256(model.tobytes()).hexdigest() for model, _ in theirs] == [
        record.model_sha256 for record in ours
    ]
    assert [accuracy for _, accuracy in theirs] == [record.metrics["accuracy"] for record in ours]


@pytest.mark.slow
def test_fedavg_in_100_lines_ends_where_the_preset_ends(root, tmp_path, monkeypatch, capsys):
    config = load_config(root / "params.yaml", preset="digits", overrides=("tracking.enabled=false",))
    result = simulate(config, tmp_path / "runs", "digits")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["fedavg_in_100_lines.py"])
    runpy.run_path(str(root / FEDAVG), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == result.rounds
    assert lines[-1].endswith(result.model_sha256)


def test_fedavg_in_100_lines_is_that_and_knows_nothing_of_fedcore(root):
    text = (root / FEDAVG).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 100
    assert "import fedcore" not in text
    assert "from fedcore" not in text


def test_a_table_of_your_own_trains_across_its_clients(own):
    result = simulate(own(), Path("runs"), "mine")
    assert result.left_out == {}
    assert set(records(Path("runs"), "mine")[-1].replied) == {"Aspen", "Birch", "Cedar", "Elder", "Hazel"}
    assert result.metrics["auc"] > 0.9


def test_a_model_of_your_own_takes_the_place_of_the_built_in_one(own):
    prepare(own(), Path("runs"))
    result = simulate(own("model.factory=own_model:residual"), Path("runs"), "mine")
    assert result.metrics["auc"] > 0.9
    spec = (result.model_dir / "model.json").read_text(encoding="utf-8")
    assert "own_model:residual" in spec


def test_a_model_that_cannot_be_found_is_named(own):
    with pytest.raises(BadConfig, match=r"model\.factory: cannot be imported .*no_such_place"):
        simulate(own("model.factory=no_such_place:net"), Path("runs"), "mine")
