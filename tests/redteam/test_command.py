"""``fedcore robustness``: table, picture, runs in MLflow; a mistake is one sentence and its exit code."""

import json

import pytest

from fedcore.cli import main

QUICK = [
    "--preset",
    "digits",
    "--settings",
    "4/1:iid",
    "--seeds",
    "1",
    "--rounds",
    "2",
    "-S",
    "model.hidden=[8]",
]
CELLS = ["--rules", "mean,nnm+trimmed_mean,krum", "--attacks", "sign_flip"]


@pytest.fixture
def fedcore(root, monkeypatch, capsys):
    """Runs a command in the repository; its exit code, standard output and standard error."""
    monkeypatch.chdir(root)

    def run(*words):
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def test_it_writes_table_picture_and_ranking(fedcore, workdir):
    code, out, err = fedcore("robustness", *QUICK, *CELLS, "--workdir", workdir, "--no-tracking", "--json")
    assert code == 0, err
    facts = json.loads(out.splitlines()[-1])
    assert {standing["rule"] for standing in facts["ranking"]} == {"mean", "nnm+trimmed_mean"}
    assert facts["cells"] == 6
    assert "skipped  4/1:iid plain krum: combine.rule krum with combine.f 1 needs at least 5" in out
    assert (workdir / "robustness.png").read_bytes()[:4] == b"\x89PNG"
    assert len((workdir / "robustness.csv").read_text().splitlines()) == 7
    assert set(json.loads((workdir / "robustness.json").read_text())) == {
        "ranking",
        "panels",
        "in_pace",
        "paces",
    }


def test_each_cell_is_one_run_in_mlflow_however_often_it_is_told(fedcore, workdir):
    from mlflow import MlflowClient

    words = ["robustness", *QUICK, "--rules", "median", "--attacks", "backdoor", "--workdir", workdir]
    for _ in range(2):
        code, _, err = fedcore(*words)
        assert code == 0, err
    client = MlflowClient(f"sqlite:///{workdir}/mlflow.db")
    experiment = client.get_experiment_by_name("robustness-digits")
    runs = client.search_runs([experiment.experiment_id])
    named = {(run.data.tags["rule"], run.data.tags["attack"]) for run in runs}
    assert named == {("mean", "none"), ("median", "none"), ("median", "backdoor")}
    assert len(runs) == 3
    run = next(run for run in runs if run.data.tags["attack"] == "backdoor")
    assert (run.data.tags["setting"], run.data.tags["variant"], run.info.status) == (
        "4/1:iid",
        "plain",
        "FINISHED",
    )
    assert [point.step for point in client.get_metric_history(run.info.run_id, "score")] == [0, 1, 2]
    assert 0 <= run.data.metrics["implanted"] <= 1
    assert run.data.params["combine.rule"] == "median"


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--rules", "medan"], 2, "unknown rule 'medan'; did you mean 'median'"),
        (["--attacks", "all"], 2, "unknown attack 'all'"),
        (["--settings", "10/6:iid"], 2, "no rule survives 6 liars among 10 clients"),
        (["--seeds", "0"], 2, "seeds must be 1 or more, got 0"),
        (["--rounds", "0"], 2, "rounds must be 1 or more, got 0"),
        (["--preset", "none"], 2, "unknown preset 'none'"),
        (["--workdir", "/proc/nothing"], 5, "cannot write"),
    ],
)
def test_a_mistake_is_one_sentence_and_its_exit_code(fedcore, tmp_path, words, code, sentence):
    given = [
        "--preset",
        "digits",
        "--seeds",
        "1",
        "--rules",
        "mean",
        "--attacks",
        "ipm",
        "--settings",
        "4/1:iid",
    ]
    got, _, err = fedcore("robustness", *given, "--workdir", tmp_path, "--no-tracking", *words)
    assert got == code
    assert sentence in err
    assert len(err.strip().splitlines()) == 1


def test_help_has_examples(fedcore):
    code, out, _ = fedcore("robustness", "--help")
    assert code == 0
    assert "fedcore robustness --preset digits --rules" in out
