"""``fedcore privacy audit``: a real run through journal and ledger, told twice, and what it leaves behind."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fedcore.cli import main
from fedcore.errors import AuditFailed, BudgetSpent, PlanRefused, RunConflict
from fedcore.ledger import entries
from fedcore.redteam.audit import audit_and_report, run_audit
from fedcore.redteam.course import Asked
from fedcore.store import Store

PRIVATE = (
    "data.partition.scheme=iid",
    "model.name=logistic",
    "model.hidden=[]",
    "combine.weights=equal",
    "cohort.sampling=poisson",
    "cohort.rate=0.5",
    "privacy.mode=central",
    "privacy.max_noise_ratio=1e6",
    "privacy.noise=seeded",
    "privacy.noise_multiplier=3",
    "privacy.clip=0.5",
    "privacy.delta=0.001",
    "run.rounds=4",
    "evaluate.every=4",
)
ASKED = Asked(canaries=20, guesses=5, seed=1)


@pytest.fixture
def private(settings):
    return settings(*PRIVATE)


@pytest.fixture
def fedcore(root, monkeypatch, capsys):
    """Runs the audit of small settings in the repository; its exit code, standard output and standard error."""
    monkeypatch.chdir(root)
    small = ("data.partition.clients=4", *PRIVATE)
    given = [part for setting in small for part in ("-S", setting)]

    def run(*words):
        with pytest.raises(SystemExit) as ended:
            main(["privacy", "audit", "--preset", "digits", *given, *(str(word) for word in words)])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def test_it_prints_the_three_bounds_beside_the_accountant_s_and_leaves_a_report(fedcore, workdir, tmp_path):
    words = (
        "--canaries",
        20,
        "--guesses",
        5,
        "--seed",
        1,
        "--workdir",
        workdir,
        "-S",
        "tracking.enabled=false",
    )
    code, out, err = fedcore(*words, "--picture", tmp_path / "seen.png", "--json")
    assert code == 0, err
    facts = json.loads(out.splitlines()[-1])
    assert facts["passed"]
    assert set(facts["lower"]) == {"one_run", "f_dp", "gaussian"}
    assert all(value <= facts["upper"] for value in facts["lower"].values())
    assert "accountant, 4 rounds" in out
    assert "one run (Steinke et al. 2023), proven" in out
    assert "round 4/4" in err
    assert (tmp_path / "seen.png").read_bytes()[:4] == b"\x89PNG"
    folder = workdir / "runs" / facts["run"] / "report"
    kept = json.loads((folder / "audit.json").read_text(encoding="utf-8"))
    assert len(kept["scores"]) == len(kept["included"]) == 20
    page = (folder / "audit.md").read_text(encoding="utf-8")
    assert page.startswith(f"# Privacy audit {facts['run']}: passed")
    assert facts["commitment"] in page

    code, again, _ = fedcore(*words, "--json")
    told = json.loads(again.splitlines()[-1])
    assert code == 0
    assert {**told, "files": None} == {**facts, "files": None}


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--canaries", "5"], 2, "canaries must be 10 or more, got 5"),
        (["--canaries", "20", "--guesses", "11"], 2, "guesses must be between 1 and 10 a side"),
        (["--confidence", "1"], 2, "confidence must be at least 0.5 and below 1, got 1"),
        (["-S", "privacy.mode=none"], 3, "privacy.mode none promises nothing that could be audited"),
        (
            ["-S", "privacy.mode=record", "-S", "privacy.unit=record"],
            3,
            "fedcore privacy membership attacks single",
        ),
        (["-S", "privacy.mechanism=laplace"], 3, "so short that the audit would pass"),
        (["-S", "privacy.delta=0.1"], 3, "δ must stay below 1/204"),
        (["-S", "privacy.epsilon=0.01"], 4, "privacy budget spent"),
    ],
)
def test_a_mistake_is_one_sentence_and_its_exit_code(fedcore, workdir, words, code, sentence):
    got, _, err = fedcore("--workdir", workdir, "-S", "tracking.enabled=false", *words)
    assert got == code, err
    assert sentence in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        (["privacy.mode=local"], "sent what their coin said, the others the opposite"),
        (
            ["privacy.mechanism=tree", "privacy.bands=2", "cohort.sampling=cyclic", "cohort.rate=1"],
            "took part",
        ),
    ],
    ids=["local", "tree"],
)
def test_other_noise_is_audited_by_the_same_command(fedcore, workdir, mode, words):
    given = [
        word for setting in (*mode, "run.rounds=2", "tracking.enabled=false") for word in ("-S", setting)
    ]
    code, out, err = fedcore("--workdir", workdir, "--canaries", "20", "--seed", "1", *given)
    assert code == 0, err
    assert words in out
    assert "audit        passed" in out


def silent(plan):
    """The plan without its noise."""
    return replace(plan, noise=replace(plan.noise, normal=lambda round_number: np.zeros))


def test_a_failed_audit_leaves_its_report_and_is_told_again_with_exit_code_10(private, fedcore, workdir):
    """The rounds of a broken pipeline are in the journal; whoever asks again hears the same of them."""
    config = replace(private, run=replace(private.run, rounds=6))
    asked = Asked(canaries=100, guesses=30, seed=1, confidence=0.95)
    verdict = run_audit(config, workdir, asked, change=silent)
    assert "one_run" in verdict.exceeding
    words = ("--canaries", 100, "--guesses", 30, "--seed", 1, "--confidence", 0.95)
    words = (*words, "--workdir", workdir, "--json")
    small = ("-S", "run.rounds=6", "-S", "model.hidden=[]", "-S", "local.epochs=1")
    code, out, err = fedcore(*words, *small, "-S", "tracking.enabled=false")
    facts = json.loads(out.splitlines()[-1])
    assert facts["run"] == verdict.run
    assert code == 10, err
    assert "audit        failed" in out
    assert "privacy audit failed: at 95.0% confidence the training leaks ε ≥" in err
    page = (workdir / "runs" / verdict.run / "report" / "audit.md").read_text(encoding="utf-8")
    assert "FAILED: one_run" in page.splitlines()[0]
    with pytest.raises(AuditFailed):
        verdict.require()


def test_the_population_s_account_pays_for_every_audited_round_once(private, workdir):
    for _ in range(2):
        verdict = run_audit(private, workdir, ASKED)
    with Store.at(workdir) as store:
        charged = [entry for entry in entries(store) if entry["kind"] == "reserve"]
    assert [(entry["run"], entry["round"]) for entry in charged] == [(verdict.run, n) for n in range(4)]
    assert verdict.spent[-1] == pytest.approx(verdict.upper)


def test_an_audit_that_was_killed_ends_in_the_same_scores(private, workdir, new_workdir):
    class Killed(Exception):
        pass

    def kill(record):
        if record.round == 1:
            raise Killed

    with pytest.raises(Killed):
        run_audit(private, workdir, ASKED, progress=kill)
    seen = []
    resumed = run_audit(private, workdir, ASKED, progress=lambda record: seen.append(record.round))
    whole = run_audit(private, new_workdir("whole"), ASKED)
    assert resumed.scores == whole.scores
    assert seen == [0, 1, 2, 3]


def test_a_budget_that_ends_early_ends_the_audit_after_the_rounds_it_paid_for(private, workdir):
    limited = replace(private, privacy=replace(private.privacy, epsilon=0.8))
    verdict = run_audit(limited, workdir, ASKED)
    assert 0 < verdict.rounds < 4
    assert verdict.upper <= 0.8
    with pytest.raises(BudgetSpent):
        run_audit(limited, workdir, replace(ASKED, seed=2))


def test_without_a_seed_the_coins_are_secret_and_are_kept_for_a_resumed_audit(private, workdir, new_workdir):
    asked = replace(ASKED, seed=None)
    first, again = (run_audit(private, workdir, asked) for _ in range(2))
    other = run_audit(private, new_workdir("other"), asked)
    assert first.secret == again.secret != other.secret
    assert first.commitment == again.commitment != other.commitment
    with Store.at(workdir) as store:
        assert store.run(first.run)[0]["audit"]["commitment"] == first.commitment


def test_other_data_under_the_same_audit_are_refused(private, workdir):
    run_audit(private, workdir, ASKED)
    checks = workdir / "data" / "checks" / "checks.json"
    results = json.loads(checks.read_text(encoding="utf-8"))
    text = checks.read_text(encoding="utf-8")
    digest = next(iter(results.values() if "sites" not in results else results["sites"].values()))["digest"]
    checks.write_text(text.replace(digest, "0" * len(digest)), encoding="utf-8")
    with pytest.raises(RunConflict, match="was begun on other data than there are now"):
        run_audit(private, workdir, ASKED, sites=workdir / "data" / "sites", checks=checks)


def test_the_plan_refuses_before_anything_is_entered(private, workdir):
    claimed = replace(private, combine=replace(private.combine, weights="samples"))
    with pytest.raises(PlanRefused):
        run_audit(claimed, workdir, ASKED)
    with Store.at(workdir) as store:
        assert store.runs() == []
        assert entries(store) == []


def test_tracking_tells_the_audited_epsilon_beside_the_claimed_one_however_often(private, workdir):
    from mlflow import MlflowClient

    config = replace(private, tracking=replace(private.tracking, enabled=True))
    for _ in range(2):
        verdict, _ = audit_and_report(config, workdir, ASKED)
    client = MlflowClient(f"sqlite:///{workdir}/mlflow.db")
    [run] = client.search_runs([client.get_experiment_by_name("digits").experiment_id])
    assert run.data.metrics["epsilon_audited"] == verdict.lower["one_run"]
    assert run.data.metrics["epsilon_claimed"] == verdict.upper
    assert {"epsilon_audited.f_dp", "epsilon_audited.gaussian"} <= set(run.data.metrics)
    assert [point.step for point in client.get_metric_history(run.info.run_id, "epsilon")] == [0, 1, 2, 3]
    assert run.data.tags["fed.audit"] == "passed"
    assert {file.path for file in client.list_artifacts(run.info.run_id, "report")} == {
        f"report/audit.{kind}" for kind in ("json", "md", "png")
    }
