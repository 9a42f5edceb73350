"""The same sink and registry through a real MLflow server, started as mlflow/README.md says."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from fedcore import registry
from fedcore.adapters.trained import TrainedModel
from fedcore.compare import compare_tracked
from fedcore.config import Gate, PromotionConfig, TrackingConfig
from fedcore.errors import BadInput, GateRefused, ServiceError
from fedcore.tracking.mlflow import open_tracking
from fedcore.tracking.points import points

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def server(tmp_path_factory, empty_database):
    """Address of a server on a free port; its own process group is stopped at the end."""
    home = tmp_path_factory.mktemp("server")
    (home / "mlflow.db").write_bytes(empty_database.read_bytes())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        name: value
        for name, _, value in (
            line.partition("=") for line in Path("mlflow/server.env").read_text().splitlines() if "=" in line
        )
        if not name.startswith("#")
    }
    words = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    store = [
        "--backend-store-uri",
        f"sqlite:///{home}/mlflow.db",
        "--artifacts-destination",
        f"{home}/artifacts",
    ]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *words, *store],
            cwd=home,
            env={**os.environ, **settings},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        uri = f"http://127.0.0.1:{port}"
        try:
            _until_it_answers(uri, process, home / "log")
            yield uri
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(20)


def _until_it_answers(uri: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{uri}/health", timeout=1):
                return
        except OSError:
            pass
        try:
            process.wait(0.2)  # a server that dies ends the waiting
        except subprocess.TimeoutExpired:
            continue
    pytest.fail(f"the server did not start: {log.read_text()[-2000:]}")


def test_a_training_reaches_the_champion_through_the_server(server, record, trained, tmp_path):
    def opener():
        config = TrackingConfig(uri=server)
        return open_tracking(config, tmp_path, "served", {"seed": 1}, {"a": "b"}, [("UA", "a" * 64)], "j")

    records = [record(n, run="served", epsilon=1.0 + n, delta=1e-5) for n in range(3)]
    for told in [*records, records[1]]:
        run = opener()
        run(told)
    found = run.client.get_metric_history(run.run_id, "auc")
    assert [(m.step, m.value) for m in found] == [(n, points(r)["auc"]) for n, r in enumerate(records)]
    run.describe({"rule": "mean"}, "guarantee", {"UA": {"passed": True}})
    run.log_records(records)
    assert run.log_model(trained("torch"), records[2]) == run.log_model(trained("torch"), records[2])
    run.finish()
    page = f"#/experiments/{run.experiment_id}/runs/{run.run_id}?workflowType=machine_learning"
    assert run.url == f"{server}/{page}"

    plain = PromotionConfig(model="served", gates=(Gate("auc", min=0.6),))
    version = registry.register(server, plain, run.run_id)
    assert registry.register(server, plain, run.run_id) == version
    with pytest.raises(GateRefused):
        registry.promote(server, PromotionConfig(model="served", gates=(Gate("auc", min=0.9),)))
    assert registry.champion(server, "served") is None
    assert registry.promote(server, plain).champion.number == version.number
    folder = registry.fetch(server, registry.champion(server, "served"), tmp_path / "fetched")
    assert TrainedModel.load(folder).spec.framework == "torch"
    row = compare_tracked(server, "fedcore", ["served"])[0]
    assert (row.rounds, row.epsilon, row.metrics["auc"]) == (3, 3.0, points(records[2])["auc"])
    assert {path.name for path in tmp_path.iterdir()} == {"fetched"}


def test_a_server_answers_for_names_it_does_not_know(server):
    assert registry.champion(server, "nobody") is None
    with pytest.raises(BadInput, match="does not know it"):
        registry.register(server, PromotionConfig(model="nobody"), "f" * 32)


def test_a_server_that_goes_away_is_one_sentence(server, record, tmp_path):
    with pytest.raises(ServiceError, match="refused or did not answer"):
        open_tracking(TrackingConfig(uri=f"{server}/nowhere"), tmp_path, "x", {}, {}, [])
