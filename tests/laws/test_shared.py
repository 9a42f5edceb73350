"""Shared memory holds what was written, is given back, and is swept after a process that was killed."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from fedcore.data.federated import SiteData
from fedcore.errors import StorageError
from fedcore.simulation import shared
from fedcore.simulation.shared import PREFIX, SharedFolder, SharedRows, empty, read, write


@pytest.mark.parametrize("shape", [(3, 4), (7,), (0, 5), ()])
def test_what_is_written_is_read_and_changes_stay_private(tmp_path, rng, shape):
    array = rng.normal(size=shape).astype(np.float32)
    first = read(write(tmp_path / "a.npy", array))
    np.testing.assert_array_equal(first, array)
    first += 1
    np.testing.assert_array_equal(read(tmp_path / "a.npy"), array)


def test_rows_of_a_matrix_are_seen_by_all_who_map_it(tmp_path):
    ours = empty(tmp_path / "m.npy", 3, 4)
    read(tmp_path / "m.npy", shared=True)[1] = 7
    np.testing.assert_array_equal(ours, [[0] * 4, [7] * 4, [0] * 4])
    (tmp_path / "m.npy").unlink()
    np.testing.assert_array_equal(ours[1], [7] * 4)


def test_rows_are_encoded_once_for_each_encoding(tmp_path, rng):
    rows = SiteData(*(rng.normal(size=(n, 2)).astype(np.float32) for n in (5, 5, 0, 0)))
    encoded = []

    def encode() -> SiteData:
        encoded.append(1)
        return rows

    found = [SharedRows(tmp_path)("a", text, encode) for text in ("x", "x", "y")]
    assert len(encoded) == 2
    for part in ("x_train", "y_train", "x_test", "y_test"):
        assert {getattr(data, part).tobytes() for data in found} == {getattr(rows, part).tobytes()}
    assert found[1].x_train.ctypes.data % 16 == 0  # products of rows that lie elsewhere may round otherwise


def test_a_closed_folder_is_gone_and_an_open_one_is_left_alone(tmp_path):
    mine, other = SharedFolder(tmp_path), SharedFolder(tmp_path)
    assert mine.path.is_dir()
    other.close()
    assert [path.name for path in tmp_path.iterdir()] == [mine.path.name]
    mine.close()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_swept_by_the_next(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from fedcore.simulation.shared import SharedFolder\n"
        "folder = SharedFolder(Path(sys.argv[1])); print(folder.path, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        left = child.stdout.readline().strip()
        os.kill(child.pid, signal.SIGKILL)
    assert os.path.isdir(left)  # noqa: PTH112
    SharedFolder(tmp_path).close()
    assert list(tmp_path.glob(f"{PREFIX}*")) == []


def test_memory_that_is_not_there_is_refused_in_a_sentence(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shared.os, "posix_fallocate", full)
    with pytest.raises(StorageError, match="no room for 4 MB of shared memory"):
        empty(tmp_path / "m.npy", 1000, 1000)
    assert list(tmp_path.iterdir()) == []


def test_a_small_shared_memory_is_passed_over_for_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(shared, "SHM", tmp_path / "none")
    monkeypatch.setattr(shared.tempfile, "gettempdir", lambda: str(tmp_path))
    assert shared.roomy() == tmp_path
