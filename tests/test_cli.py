"""The command line says what happened, in one sentence when it is the user's mistake."""

import json
import shutil
import subprocess
import sys

import pytest

from fedcore.cli import main

TINY = [
    "-S",
    "run.rounds=2",
    "-S",
    "data.partition.clients=4",
    "-S",
    "tracking.enabled=false",
    "-S",
    "model.hidden=[8]",
]


@pytest.fixture
def fedcore(root, monkeypatch, fedcore):
    """Runs a command in the repository."""
    monkeypatch.chdir(root)
    return fedcore


def test_simulate_shows_rounds_and_ends_with_one_json_object(fedcore, workdir):
    code, out, err = fedcore(
        "simulate", "--preset", "digits", *TINY, "--run", "a", "--workdir", workdir, "--json"
    )
    assert code == 0
    facts = json.loads(out.splitlines()[-1])
    assert {"run", "rounds", "metrics", "epsilon", "model_sha256", "mlflow_run"} <= facts.keys()
    assert (facts["run"], facts["rounds"]) == ("a", 2)
    assert "round 2/2  accuracy" in err
    assert "accuracy     0." in out
    assert "tracking is off" in out


def test_simulate_names_the_run_after_the_preset_and_shows_privacy(fedcore, workdir):
    private = [
        "-S",
        "privacy.max_noise_ratio=1e6",
        "-S",
        "privacy.mode=central",
        "-S",
        "combine.weights=equal",
        "-S",
        "privacy.delta=0.01",
    ]
    strong = ["-S", "privacy.noise_multiplier=4", "-S", "privacy.epsilon=20"]
    code, out, err = fedcore("simulate", "--preset", "digits", *TINY, *private, *strong, "--workdir", workdir)
    assert code == 0, err
    assert "run          digits: 2 rounds" in out
    assert "privacy      ε = " in out
    code, out, _ = fedcore("privacy", "ledger", "--workdir", workdir, "--json")
    assert json.loads(out)["entries"] == 5
    code, out, _ = fedcore("privacy", "ledger", "--workdir", workdir)
    assert "account digits@" in out
    assert "100.0 %" in out


def test_an_empty_ledger_says_so(fedcore, workdir):
    assert "nothing was charged" in fedcore("privacy", "ledger", "--workdir", workdir)[1]


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["-S", "local.lrr=1"], 2, "unknown parameter local.lrr; nearest known: local.lr"),
        (["-S", "run.rounds=0"], 2, "run.rounds: must be greater than or equal to 1, got 0"),
        (["--preset", "nope"], 2, "unknown preset 'nope'"),
        (["--params", "none.yaml"], 2, "cannot read none.yaml"),
        (["-S", "data.name=fligths"], 2, "did you mean 'flights'"),
        (["-S", "data.partition.clients=1"], 2, "needs at least 2 clients, got 1"),
        (["-S", "combine.rule=maen"], 2, "unknown rule 'maen'"),
        (["-S", "privacy.mode=central"], 3, "set combine.weights: equal"),
        (["--workdir", "/proc/nothing"], 5, "cannot write to /proc/nothing"),
    ],
)
def test_a_mistake_is_one_sentence_and_its_exit_code(fedcore, tmp_path, words, code, sentence):
    given = [] if "--workdir" in words else ["--workdir", tmp_path / "w"]
    preset = [] if "--preset" in words else ["--preset", "digits"]
    got, _, err = fedcore("simulate", *preset, *given, "-S", "tracking.enabled=false", *words)
    assert got == code
    lines = [line for line in err.splitlines() if not line.startswith("round")]
    assert len(lines) == 1
    assert lines[0].startswith("fedcore: ")
    assert sentence in lines[0]


def test_a_run_refused_by_its_plan_leaves_no_run(fedcore, workdir):
    fedcore("simulate", "--preset", "digits", *TINY, "-S", "privacy.mode=central", "--workdir", workdir)
    code, _, err = fedcore("compare", "digits", "--workdir", workdir)
    assert code == 2, err


def test_doctor_lists_the_parts(fedcore):
    code, out, _ = fedcore("doctor", "--json")
    assert code == 0
    assert json.loads(out)["numpy"]
    assert "onnxruntime" in fedcore("doctor")[1]


@pytest.mark.parametrize("words", [[], ["simulate"], ["data"], ["privacy", "ledger"], ["edge"], ["edge", "run"], ["compare"],
                                   ["promote"], ["rollback"], ["up"], ["down"], ["status"], ["doctor"],
                                   ["verify"], ["verify", "ledger"]])  # fmt: skip
def test_every_command_has_help(fedcore, words):
    code, out, _ = fedcore(*words, "--help")
    assert code == 0
    assert "Usage" in out
    if (words and words[0] not in ("data", "edge")) or len(words) > 1:
        assert "Example" in out


def test_interrupting_says_how_to_go_on(monkeypatch, capsys):
    import fedcore.cli as cli

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", interrupted)
    monkeypatch.setattr(cli, "_mount", lambda: None)
    with pytest.raises(SystemExit, match="130"):
        main([])
    assert "run the same command again" in capsys.readouterr().err


def test_the_installed_command_starts_and_fails_honestly():
    script = shutil.which("fedcore", path=str(__import__("pathlib").Path(sys.executable).parent))
    assert script
    done = subprocess.run(
        [script, "simulate", "--preset", "nope"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_importing_fedcore_is_cheap_and_loads_nothing_heavy():
    code = (
        "import sys, time; t = time.perf_counter(); import fedcore; took = time.perf_counter() - t; "
        "heavy = {'torch', 'mlflow', 'airflow', 'pandas', 'sqlalchemy', 'sklearn'} & set(sys.modules); "
        "print(took); sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.3


def test_public_names_are_there_and_others_are_not():
    import fedcore

    assert fedcore.load_config.__module__ == "fedcore.config.load"
    with pytest.raises(AttributeError, match="nothing_like_it"):
        fedcore.nothing_like_it  # noqa: B018


def test_models_shows_each_built_in_model_and_what_it_costs(fedcore):
    code, out, _ = fedcore("models", "--json")
    costs = {entry["name"]: entry for entry in json.loads(out)}
    assert code == 0
    assert costs["lenet"] == {
        "name": "lenet",
        "title": "LeNet-5: 2 convolutions, 3 dense layers",
        "frameworks": ["torch"],
        "input_shape": [28, 28],
        "outputs": 10,
        "parameters": 44426,
        "bytes": 177704,
        "flops": 563280,
    }
    code, out, _ = fedcore("models")
    assert code == 0
    assert all(name in out for name in costs)
    assert "28 x 28" in out
    assert "563,280" in out
