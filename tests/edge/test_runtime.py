import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from fedcore.edge.bundle import publish, rollback
from fedcore.edge.model import EdgeModel
from fedcore.edge.runtime import Device
from fedcore.errors import BadInput, BundleRefused, RunBusy, ServiceError, StorageError


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_device_serves_what_was_trained(device, bundles, rows, make_trained):
    trained = make_trained(1)
    scores, version = device.predict(rows)
    assert version == 1
    np.testing.assert_allclose(scores, trained.predict(trained.features.validate_rows(rows)), atol=1e-6)


def test_a_device_swaps_to_a_new_version_and_back_on_a_rollback(device, repo, keys, bundles):
    assert not device.refresh(), "nothing new"
    publish(bundles[2], repo, keys, 2)
    assert device.refresh()
    assert device.health().version == 2
    rollback(repo, keys)
    assert device.refresh()
    assert device.health().version == 1
    assert device.health().status == "serving"
    assert device.health().last_error is None


def test_an_older_signed_state_is_refused_as_rolled_back(device, repo, keys, bundles):
    old = (repo / "metadata" / "timestamp.json").read_bytes()
    publish(bundles[2], repo, keys, 2)
    device.refresh()
    (repo / "metadata" / "timestamp.json").write_bytes(old)
    with pytest.raises(BundleRefused, match="rolled back"):
        device.refresh()
    assert device.health().version == 2


def test_a_restart_without_a_network_serves_the_last_model(device, repo, root, keys, bundles, rows, tmp_path):
    publish(bundles[2], repo, keys, 2)
    device.refresh()
    before, _ = device.predict(rows)
    device.close()
    shutil.rmtree(repo)
    again = Device(tmp_path / "home", repo, root)
    scores, version = again.predict(rows)
    assert version == 2
    assert np.array_equal(scores, before)
    again.close()


@pytest.mark.parametrize("damage", ["model", "manifest", "current", "folder"])
def test_a_damaged_home_is_reported_and_mended_by_the_next_refresh(
    device, repo, root, rows, tmp_path, damage
):
    device.close()
    (version,) = (tmp_path / "home" / "versions").iterdir()
    match damage:
        case "model":
            _flip(version / "model.onnx")
        case "manifest":
            (version / "manifest.json").unlink()
        case "current":
            (tmp_path / "home" / "current").write_text("{")
        case "folder":
            shutil.rmtree(version)
    again = Device(tmp_path / "home", repo, root)
    assert again.health().status == "empty"
    assert "the last time cannot be used" in str(again.health().last_error)
    assert again.refresh()
    assert again.predict(rows)[1] == 1
    again.close()


def test_two_processes_cannot_share_a_home(device, repo, root, tmp_path):
    with pytest.raises(RunBusy, match="another process uses"):
        Device(tmp_path / "home", repo, root)


def test_a_home_that_cannot_be_written_and_a_root_that_is_not_there_are_named(repo, root, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot use"):
        Device(tmp_path / "file" / "home", repo, root)
    with pytest.raises(BadInput, match="cannot read"):
        Device(tmp_path / "home", repo, tmp_path / "none.json")


def test_a_device_whose_root_is_no_root_refuses_everything(repo, tmp_path, rows):
    (tmp_path / "root.json").write_text("{}")
    device = Device(tmp_path / "home", repo, tmp_path / "root.json")
    with pytest.raises(BundleRefused):
        device.refresh()
    assert device.health().status == "empty"
    device.close()


def test_a_full_disk_leaves_the_old_model(device, repo, keys, bundles, tmp_path):
    publish(bundles[2], repo, keys, 2)
    shutil.rmtree(tmp_path / "home" / "metadata")
    (tmp_path / "home" / "metadata").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write"):
        device.refresh()
    assert device.health().version == 1
    assert device.health().status == "stale"


def test_a_home_that_got_lost_while_running_leaves_the_old_model(device, repo, keys, bundles, rows, tmp_path):
    publish(bundles[2], repo, keys, 2)
    shutil.rmtree(tmp_path / "home" / "versions")
    (tmp_path / "home" / "versions").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write"):
        device.refresh()
    assert device.predict(rows)[1] == 1
    assert device.health().status == "stale"


def test_a_repository_may_be_any_address_that_fsspec_knows(repo, root, tmp_path):
    device = Device(tmp_path / "elsewhere", f"file://{repo}", root)
    assert device.refresh()
    assert device.health().version == 1
    device.close()
    lost = Device(tmp_path / "elsewhere", "nosuchscheme://repo", root)
    with pytest.raises(ServiceError, match="cannot be reached"):
        lost.refresh()
    lost.close()


def test_only_the_version_in_use_and_the_one_before_are_kept(device, repo, keys, bundles, tmp_path):
    for version in (2, 3):
        publish(bundles[version], repo, keys, version)
        device.refresh()
    assert sorted(path.name[:2] for path in (tmp_path / "home" / "versions").iterdir()) == ["2-", "3-"]


def test_a_thousand_rows_are_answered_and_one_more_is_refused(device, rows):
    assert len(device.predict([rows[0]] * 1000)[0]) == 1000
    with pytest.raises(BadInput, match="1001 rows are too many"):
        device.predict([rows[0]] * 1001)
    assert device.health().predictions == 1000
    assert device.health().refused == 1


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (
            {"distance": "far", "wind": 1, "origin": "JFK"},
            "row 1, column 'distance': must be a number, got 'far'",
        ),
        ({"distance": 1, "wind": 1}, "row 1: column 'origin' is missing"),
        ({"distance": 1, "wind": 1, "origin": "JFK", "late": 1}, "row 1: unknown column 'late'"),
        ({"distance": None, "wind": 1, "origin": "JFK"}, "'distance': must be a number"),
        ({"distance": 1e308, "wind": 1e308, "origin": "JFK"}, "row 1 is too far out of range"),
        (7, "row 1 is a int"),
    ],
)
def test_a_row_outside_the_schema_is_refused_by_row_and_column(device, rows, row, sentence):
    with pytest.raises(BadInput, match=sentence):
        device.predict([rows[0], row])


def test_requests_during_swaps_each_see_one_version(device, repo, keys, bundles, rows):
    publish(bundles[2], repo, keys, 2)
    expected = {version: EdgeModel.load(bundles[version]).predict(rows) for version in (1, 2)}
    wrong, seen, stop = [], set(), threading.Event()

    def ask() -> None:
        while not stop.is_set():
            scores, version = device.predict(rows)
            seen.add(version)
            if not np.array_equal(scores, expected[version]):
                wrong.append(version)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for move in range(6):
        device.refresh()
        rollback(repo, keys, to=1) if move % 2 == 0 else publish(bundles[2], repo, keys, 2)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert seen == {1, 2}


def test_the_device_process_loads_neither_torch_nor_mlflow_nor_pandas(tmp_path, repo, root):
    code = (
        "import sys; from pathlib import Path\n"
        "from fedcore.edge.runtime import Device; from fedcore.edge.server import create_app; import fedcore.cli.edge\n"
        f"device = Device(Path({str(tmp_path / 'home')!r}), {str(repo)!r}, Path({str(root)!r}))\n"
        "assert device.refresh(); create_app(device, 1.0)\n"
        "print(sorted({'torch', 'mlflow', 'pandas', 'onnx', 'pyarrow', 'sklearn', 'airflow'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
