import stat

import pytest

from fedcore.edge.files import sha256, write_atomically
from fedcore.errors import StorageError


def test_a_file_is_replaced_as_a_whole_with_its_mode(tmp_path):
    path = tmp_path / "deep" / "file"
    write_atomically(path, b"old")
    write_atomically(path, b"new", mode=0o600)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["file"]


def test_a_place_that_cannot_be_written_is_named_and_nothing_is_left(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder" / "full").mkdir(parents=True)
    for path in (tmp_path / "file" / "below", tmp_path / "folder"):
        with pytest.raises(StorageError, match=f"cannot write {path}: .*; free space"):
            write_atomically(path, b"data")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "folder"]


def test_the_digest_is_sha256():
    assert sha256(b"abc").startswith("ba7816bf")
