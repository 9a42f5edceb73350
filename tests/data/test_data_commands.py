"""``fedcore data`` as a person types it, and the DVC stages as DVC runs them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fedcore.cli.data import app
from fedcore.data.schema import Schema
from fedcore.errors import BadData, UnknownName

MADE = ["-S", "data.sites=[]", "-S", "data.partition.scheme=iid", "-S", "data.partition.clients=3"]


def said(*arguments: str) -> str:
    """Standard output of a command; errors of ours come through as they are."""
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def told(*arguments: str) -> Any:
    return json.loads(said(*arguments, "--json"))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_sets_are_listed_for_people_and_programs() -> None:
    assert "336,776 flights" in said("list")
    assert [entry["name"] for entry in told("list")] == [
        "flights",
        "digits",
        "fashion-mnist",
        "cifar10",
        "heart",
        "heart-flamby",
        "heart-flamby-pooled",
        "brca",
        "brca-pooled",
        "school",
        "school-shares",
        "shakespeare",
        "mnist-by-writer",
        "uci-har",
        "wisdm",
        "own",
    ]


def test_a_set_is_fetched_split_drawn_and_checked() -> None:
    assert "digits: rows of shape (8, 8), to learn: y (classification); in runs/data/raw" in said(
        "get", "digits"
    )
    assert told("get", "digits")["schema"]["shape"] == [8, 8]
    Path("runs/data/prepared.json").touch()
    assert "3 sites in runs/data/sites: client-000, client-001, client-002" in said("partition", *MADE)
    assert not Path("runs/data/prepared.json").exists()
    facts = told("partition", *MADE, "--picture", "p.png")
    assert facts["sites"] == ["client-000", "client-001", "client-002"]
    assert Path(facts["picture"]).stat().st_size > 1000
    assert told("check")["passed"] == 3
    assert "client-001" in said("check")
    with pytest.raises(BadData, match="no site passes its checks"):
        said("check", "-S", "checks.min_rows=600", "-S", "checks.docs=false")


def test_an_unknown_set_is_refused() -> None:
    with pytest.raises(UnknownName, match="unknown data set 'digit'; did you mean 'digits'"):
        said("get", "digit")


@pytest.mark.parametrize("command", ["list", "get", "partition", "check"])
def test_every_command_shows_an_example(command: str) -> None:
    assert f"fedcore data {command}" in said(command, "--help")


def stage(root: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.run(
        [sys.executable, str(root / "pipelines" / f"{name}.py"), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


@pytest.mark.slow
def test_the_stages_do_the_same_one_by_one(root: Path) -> None:
    Path("params.yaml").write_text("data: {name: digits, partition: {scheme: iid, clients: 2}}\n")
    for arguments in (["ingest"], ["partition", "client-000"], ["partition", "client-001"], ["check"]):
        assert stage(root, *arguments).returncode == 0
    assert Schema.load(Path("data/sites")).dataset == "digits"
    assert json.loads(Path("reports/checks.json").read_text())["passed"] == 2
    assert Path("reports/docs/client-001/index.html").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["ingest"], 2, "ingest: unknown data set 'digit'"),
        (["partition"], 2, "partition: name one site"),
        (["partition", "UA"], 5, "partition: cannot read data/raw/schema.json"),
        (["check"], 5, "check: cannot read data/sites/schema.json"),
    ],
)
def test_a_stage_that_fails_says_one_sentence(
    arguments: list[str], code: int, sentence: str, root: Path
) -> None:
    Path("params.yaml").write_text("data: {name: digit}\n")
    failed = stage(root, *arguments)
    assert failed.returncode == code
    assert failed.stderr.startswith(sentence)
    assert failed.stderr.count("\n") == 1


def test_a_stage_of_one_site_loads_nothing_heavy(root: Path) -> None:
    code = "import sys, fedcore.data.partition, fedcore.data.federated; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(root)},
        check=True,
    ).stdout.split()
    assert not {"torch", "pandas", "sklearn", "great_expectations", "mlflow", "matplotlib", "pyarrow"} & set(
        loaded
    )
