import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedcore.cli.edge import app
from fedcore.data.features import Columns
from fedcore.edge.holdout import held_out
from fedcore.errors import BadInput, BundleRefused, MissingExtra, ServiceError

COMMANDS = ["keys", "export", "publish", "rollback", "verify", "run", "status"]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _run(*words: object) -> dict:
    done = CliRunner().invoke(app, [str(word) for word in words] + ["--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


def _write_sites(folder: Path, columns: Columns) -> Path:
    """Two sites as the partition stage writes them, and one whose file is broken."""
    lines = ["distance,wind,origin,late"]
    for distance, wind, origin in zip(
        *(columns[name].tolist() for name in ("distance", "wind", "origin")), strict=True
    ):
        lines.append(f"{distance},{'' if wind != wind else wind},{origin},{int(distance > 900)}")
    for site in ("AA", "UA"):
        (folder / site).mkdir(parents=True)
        (folder / site / "rows.csv").write_text("\n".join(lines))
    (folder / "bad").mkdir()
    (folder / "bad" / "rows.csv").write_text("nothing,of,use\n1,2,3\n")
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example(command):
    done = CliRunner().invoke(app, [command, "--help"])
    assert done.exit_code == 0
    assert f"Example: fedcore edge {command}" in done.output


def test_a_model_goes_from_training_to_a_signed_repository_and_back(tmp_path, make_trained):
    trained = make_trained(1)
    trained.save(tmp_path / "model")
    make_trained(2).save(tmp_path / "model2")
    rows = trained.features.validate_rows(
        [{"distance": d, "wind": None, "origin": "JFK"} for d in range(0, 2000, 20)]
    )
    sites = _write_sites(tmp_path / "sites", rows)
    keys = _run("keys", "keys")
    slow = ("--set", "edge.max_latency_ms=1000", "--set", "edge.expires_days=3")
    report = _run("export", "--model", "model", "--sites", sites, "--out", "bundle", "--name", "toy", *slow)
    assert report["rows"] > 10
    assert report["max_difference"] < 1e-5
    _run("export", "--model", "model2", "--sites", sites, "--out", "bundle2", *slow)
    where = ("--repo", "repo", "--keys", keys["keys"])
    assert _run("publish", "--bundle", "bundle", *where, "--version", 1, *slow)["changed"]
    assert not _run("publish", "--bundle", "bundle", *where, "--version", 1, *slow)["changed"]
    assert _run("publish", "--bundle", "bundle2", *where, "--version", 2, *slow)["previous"] == 1
    assert _run("rollback", *where, *slow)["version"] == 1
    report = _run("verify", "--repo", "repo", "--root", keys["root"])
    assert report["channels"] == {"champion": 1}
    assert report["versions"] == [1, 2]


def test_a_table_is_printed_for_people(tmp_path):
    done = CliRunner().invoke(app, ["keys", "keys"])
    assert done.exit_code == 0
    assert "root.json" in done.output
    assert "{" not in done.output


def test_errors_reach_the_caller_as_they_are(tmp_path, repo, bundles, keys):
    def error(*words: object) -> BaseException | None:
        return CliRunner().invoke(app, [str(word) for word in words]).exception

    lower = error("publish", "--bundle", bundles[2], "--repo", repo, "--keys", keys, "--version", 1)
    assert isinstance(lower, BundleRefused)
    assert lower.exit_code == 8
    silent = error("status", "http://127.0.0.1:1")
    assert isinstance(silent, ServiceError)
    assert silent.exit_code == 6


def test_a_taken_port_ends_the_device_with_exit_code_six_and_frees_its_home(tmp_path, repo, root):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = ["run", "--repo", repo, "--root", root, "--home", "home", "--port", port]
        for _ in range(2):
            done = CliRunner().invoke(app, [str(word) for word in words])
            assert isinstance(done.exception, ServiceError)
            assert done.exception.exit_code == 6
            assert f"127.0.0.1:{port}: Address already in use; choose another" in str(done.exception)


def test_a_library_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    for module in [name for name in sys.modules if name.startswith("fedcore.edge.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "tuf.api.metadata", None)
    done = CliRunner().invoke(app, ["keys", "keys"])
    assert isinstance(done.exception, MissingExtra)
    assert "fedcore-mlops[edge]" in str(done.exception)


def test_sites_without_a_usable_one_are_refused(tmp_path, make_trained):
    with pytest.raises(BadInput, match="holds no usable site"):
        held_out(tmp_path / "none", make_trained().schema, 1, 0.2)
