"""The comparison is on held-out rows, site by site, smallest first, and never flatters."""

import json

import pytest

from fedcore.adapters.trained import TrainedModel
from fedcore.coordinator import records, simulate
from fedcore.errors import BadInput, CorruptState
from fedcore.experiments import (
    compare_models,
    evaluate,
    fit_baselines,
    passing_sites,
    write_comparison,
    write_evaluation,
)
from fedcore.report import publish, rounds_table


@pytest.fixture
def trained(workdir, settings):
    result = simulate(settings(), workdir, "a")
    return TrainedModel.load(result.model_dir)


def test_baselines_compare_three_models_on_the_same_rows(trained, workdir, settings, tmp_path):
    config, said = settings(), []
    clients = passing_sites(workdir / "data/checks/checks.json", config)
    fitted = fit_baselines(trained, workdir / "data/sites", clients, config, said.append)
    found = compare_models(trained, fitted, workdir / "data/sites", config)
    assert found.metric == "accuracy"
    assert [site.rows for site in found.sites] == sorted(site.rows for site in found.sites)
    assert len(said) == 1 + len(clients)
    assert found.federated == pytest.approx(
        evaluate(trained, workdir / "data/sites", clients, config).metrics["accuracy"]
    )
    assert found.pooled > 0.3
    write_comparison(found, tmp_path / "reports")
    assert json.loads((tmp_path / "reports/compare.json").read_text())["pooled"] == found.pooled
    assert (tmp_path / "reports/compare.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(BadInput, match="no client"):
        fit_baselines(trained, workdir / "data/sites", (), config)


def test_an_evaluation_is_a_row_a_site(trained, workdir, settings, tmp_path):
    config = settings()
    clients = passing_sites(workdir / "data/checks/checks.json", config)
    write_evaluation(evaluate(trained, workdir / "data/sites", clients, config), tmp_path)
    lines = (tmp_path / "sites.csv").read_text().splitlines()
    assert lines[0] == "site,accuracy,loss,rows"
    assert [line.split(",")[0] for line in lines[1:]] == list(clients)
    assert "accuracy_p10" in json.loads((tmp_path / "evaluation.json").read_text())["spread"]


def test_only_chosen_sites_that_passed_count(workdir, settings):
    checks = workdir / "data/checks/checks.json"
    assert passing_sites(checks, settings("data.sites=[client-001]")) == ("client-001",)
    with pytest.raises(CorruptState, match="none.json"):
        passing_sites(workdir / "none.json", settings())


def test_publishing_replaces_model_and_reports_whole(trained, workdir, tmp_path):
    for _ in range(2):
        publish(workdir / "runs/a/model", records(workdir, "a"), tmp_path / "models", tmp_path / "reports")
    assert TrainedModel.load(tmp_path / "models").vector.tobytes() == trained.vector.tobytes()
    metrics = json.loads((tmp_path / "reports/metrics.json").read_text())
    assert metrics["rounds"] == 3
    table = (tmp_path / "reports/rounds.csv").read_text()
    assert table == rounds_table(records(workdir, "a"))
    assert table.splitlines()[0] == "round,accuracy,loss,rows,epsilon,replied,bytes_up"
    assert (tmp_path / "reports/rounds/quality.png").exists()


def test_a_folder_that_is_no_model_is_named(tmp_path):
    with pytest.raises(CorruptState, match="is not a trained model"):
        TrainedModel.load(tmp_path)
