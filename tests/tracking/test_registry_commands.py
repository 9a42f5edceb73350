"""``fedcore promote`` and ``fedcore rollback`` through the command line."""

import json

import pytest
from typer.testing import CliRunner

from fedcore.cli.registry import app
from fedcore.errors import BadInput, GateRefused


@pytest.fixture
def finished(opened, record, trained, workdir):
    for number, name in enumerate(("one", "two")):
        run = opened(name)
        if name == "two":
            run.describe({}, "Client-level differential privacy: ε = 4.0 at δ = 1e-05. Budget ε = 8.")
        run.log_model(trained(), record(number))
        run.finish()
    params = workdir / "params.yaml"  # not the one of the folder that the tests run in
    params.write_text("tracking: {experiment: fedcore}\npromotion: {model: toy}\n")
    return ["--workdir", str(workdir), "--params", str(params), "--json"]


def _run(*words):
    return CliRunner().invoke(app, words)


def _facts(*words):
    done = _run(*words)
    assert done.exit_code == 0, done.exception
    return json.loads(done.stdout)


def test_a_run_is_promoted_by_name_and_rolled_back(finished):
    assert _facts("promote", "one", *finished)["champion"] == 1
    second = _facts("promote", "two", *finished)
    assert (second["champion"], second["previous"], second["moved"]) == (2, 1, True)
    assert second["guarantee"].startswith("Client-level differential privacy: ε = 4.0")
    assert not _facts("promote", "--version", "2", *finished)["moved"]
    assert _facts("rollback", *finished)["champion"] == 1


def test_a_person_sees_a_table(finished):
    shown = _run("promote", "one", *finished[:-1], "--set", "promotion.gates=[{metric: auc, min: 0.5}]")
    assert shown.exit_code == 0
    assert "Promoted" in shown.stdout
    assert "0.6 (min 0.5)" in shown.stdout
    assert "not stated by the run" in shown.stdout


def test_a_refusal_is_an_error_of_ours(finished):
    gates = "promotion.gates=[{metric: auc, min: 0.9}]"
    assert isinstance(_run("promote", "one", *finished, "--set", gates).exception, GateRefused)
    assert isinstance(_run("rollback", *finished).exception, BadInput)


@pytest.mark.parametrize("command", ["promote", "rollback"])
def test_help_shows_an_example(command):
    assert f"Example: fedcore {command}" in _run(command, "--help").stdout
