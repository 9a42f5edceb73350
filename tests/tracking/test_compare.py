"""Rows of runs: from records and from MLflow they are the same."""

import json

import pytest
from typer.testing import CliRunner

from fedcore.cli.compare import app
from fedcore.compare import compare, compare_tracked
from fedcore.errors import BadInput, CorruptState

GUARANTEE = "Client-level differential privacy: ε = 4.0 at δ = 1e-05, Gaussian noise (central). Budget ε = 8."


@pytest.fixture
def runs(record, opened, workdir, uri):
    """Two runs, one private whose last round was rolled back, in records and in MLflow."""
    for name, private in (("open", False), ("private", True)):
        budget = [{"epsilon": 1.0 + n, "delta": 1e-5} if private else {} for n in range(4)]
        last = {"verdict": "rollback", "refused": {"AA": "norm"}} if private else {}
        records = [record(n, run=name, **budget[n], **(last if n == 3 else {})) for n in range(4)]
        folder = workdir / "runs" / name
        folder.mkdir(parents=True)
        (folder / "records.jsonl").write_text("".join(r.canonical() + "\n" for r in records))
        run = opened(name)
        for told in records:
            run(told)
        if private:
            (folder / "guarantee.txt").write_text(f"{GUARANTEE}\n")
            run.describe({}, GUARANTEE)
    return workdir


def test_a_row_is_the_last_kept_model_and_the_sums_of_all_rounds(runs):
    row = compare(runs, ["private"])[0]
    assert (row.run, row.rounds, row.rolled_back) == ("private", 4, 1)
    assert row.metrics == {"auc": 0.6 + 0.02 * 2, "loss": 0.7 - 0.03 * 2}
    assert (row.epsilon, row.delta) == (4.0, 1e-5)
    assert (row.refused, row.dropped, row.bytes_up) == (0, 0, 0), (
        "who took part in private rounds is not told"
    )
    clear = compare(runs, ["open"])[0]
    assert (clear.dropped, clear.bytes_up, clear.bytes_down) == (4, 4000, 16000)


def test_a_round_that_was_not_judged_does_not_hide_the_metrics_before_it(runs, record):
    with (runs / "runs" / "open" / "records.jsonl").open("a") as records:
        records.write(record(4, run="open", metrics={}, client_metrics={}).canonical() + "\n")
    assert compare(runs, ["open"])[0].metrics["auc"] == 0.6 + 0.02 * 3


def test_records_and_mlflow_give_the_same_rows(runs, uri):
    names = ["private", "open"]
    assert compare(runs, names) == compare_tracked(uri, "fedcore", names)
    by_name = {row.run: row for row in compare_tracked(uri, "fedcore")}
    assert [by_name[row.run] for row in compare(runs)] == compare(runs)


def test_the_guarantee_of_each_run_is_shown(runs, uri):
    assert [row.guarantee for row in compare(runs)] == [None, GUARANTEE]
    shown = CliRunner().invoke(app, ["--workdir", str(runs)]).stdout
    assert "private: Client-level differential privacy: ε = 4.0 at δ = 1e-05" in shown
    assert "Budget" not in shown
    (runs / "runs" / "private" / "guarantee.txt").write_bytes(b"\xff")
    with pytest.raises(CorruptState, match=r"guarantee\.txt cannot be read"):
        compare(runs)


def test_what_is_not_there_is_named(runs, tmp_path):
    with pytest.raises(BadInput, match="unknown run 'opem'; did you mean 'open'"):
        compare(runs, ["opem"])
    with pytest.raises(BadInput, match="no runs in"):
        compare(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["{", "[1]", '{"run": "x"}', "\xff"])
def test_records_that_cannot_be_read_are_named(runs, text):
    path = runs / "runs" / "open" / "records.jsonl"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(CorruptState, match=r"records\.jsonl does not hold round records"):
        compare(runs)


def test_a_run_without_rounds_is_an_empty_row(runs):
    (runs / "runs" / "open" / "records.jsonl").write_text("")
    row = compare(runs, ["open"])[0]
    assert (row.rounds, row.metrics, row.epsilon, row.bytes_up) == (0, {}, None, 0)


def test_the_command_prints_a_table_or_json(runs, uri):
    shown = CliRunner().invoke(app, ["private", "open", "--workdir", str(runs)])
    assert shown.exit_code == 0
    assert "private" in shown.stdout
    assert "0.64" in shown.stdout
    lists = [
        json.loads(CliRunner().invoke(app, ["private", *where, "--json"]).stdout)
        for where in (["--workdir", str(runs)], ["--tracking-uri", uri, "--experiment", "fedcore"])
    ]
    assert lists[0] == lists[1]
    assert lists[0][0]["metrics"]["auc"] == pytest.approx(0.64)


def test_the_experiment_of_the_parameters_is_the_default(runs, uri, monkeypatch):
    monkeypatch.chdir(runs)
    (runs / "params.yaml").write_text("tracking: {experiment: other}\n")
    failed = CliRunner().invoke(app, ["--tracking-uri", uri])
    assert "unknown experiment 'other'" in str(failed.exception)


def test_without_privacy_the_table_has_no_epsilon(runs):
    shown = CliRunner().invoke(app, ["open", "--workdir", str(runs)])
    assert "ε" not in shown.stdout


def test_help_shows_an_example():
    assert "fedcore compare first second" in CliRunner().invoke(app, ["--help"]).stdout
