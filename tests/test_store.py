"""What is committed stays as it was, and damage is named."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from fedcore.errors import CorruptState, RunBusy, StorageError
from fedcore.state import Outcome
from fedcore.store import Store
from fedcore.types import Reply


@pytest.fixture
def store(tmp_path):
    with Store.at(tmp_path / "w") as opened:
        yield opened


def vector(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_a_step_is_computed_once_and_read_back_to_the_bit(store):
    calls = []

    def compute() -> Outcome:
        calls.append(1)
        return Outcome({"b": [1, "ä"], "a": None}, {"x": vector(1, 2), "y": np.array([0.1])})

    first = store.journal("r", 0).once("combine", compute)
    again = store.journal("r", 0).once("combine", compute)
    assert len(calls) == 1
    assert again.facts == first.facts == {"b": [1, "ä"], "a": None}
    assert again.arrays["x"].tobytes() == vector(1, 2).tobytes()
    assert again.arrays["y"].dtype == np.float64


def test_a_blob_without_its_row_is_adopted_not_drawn_again(store):
    step = Outcome({"finite": True}, {"model": vector(5)})
    store.write("r", 0, "release", step, 0.1)
    with store.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM steps")
    adopted = store.journal("r", 0).once("release", lambda: pytest.fail("drawn twice"))
    assert adopted.facts == {"finite": True}
    assert adopted.arrays["model"] == vector(5)


def test_the_first_reply_of_a_client_counts_and_its_name_is_no_path(store):
    journal = store.journal("r", 0)
    for value in (1, 2):
        journal.keep(Reply("../../etc/x", {"loss": 0.5}, vector(value)))
    journal.keep(Reply("broken", error="no rows"))
    kept = store.journal("r", 0).replies()
    assert kept["../../etc/x"].vector == vector(1)
    assert kept["broken"].error == "no rows"
    assert kept["broken"].vector is None
    assert {p.parent.name for p in (store.workdir / "blobs").rglob("reply-*")} == {"r00000"}


def test_a_changed_blob_is_named(store):
    store.write("r", 0, "release", Outcome({}, {"model": vector(1)}), 0)
    blob = next((store.workdir / "blobs").rglob("release*"))
    blob.write_bytes(blob.read_bytes()[:-1] + b"\x00")
    with pytest.raises(CorruptState, match=r"release\.safetensors does not match its digest"):
        store.journal("r", 0).kept("release")
    blob.unlink()
    with pytest.raises(CorruptState, match="cannot be read"):
        store.journal("r", 0).kept("release")


def test_a_changed_row_is_named(store):
    store.write("r", 0, "judge", Outcome({"verdict": "keep"}), 0)
    store.create_run("r", {"seed": 1}, {})
    with store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE steps SET facts = '{}'")
        connection.exec_driver_sql("UPDATE runs SET body = '{}'")
    with pytest.raises(CorruptState, match="step judge of run r, round 0"):
        store.journal("r", 0).kept("judge")
    with pytest.raises(CorruptState, match="run r does not match"):
        store.run("r")


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 100])
def test_a_broken_journal_is_named_and_never_made_anew(tmp_path, content):
    place = tmp_path / "w"
    with Store.at(place) as store:
        store.create_run("r", {}, {})
    for file in place.glob("journal.db*"):
        file.unlink()
    (place / "journal.db").write_bytes(content)
    with pytest.raises(CorruptState, match=r"journal\.db"), Store.at(place):
        pass
    assert (place / "journal.db").read_bytes() == content


def test_a_damaged_page_is_found_when_the_journal_is_opened(tmp_path):
    with Store.at(tmp_path) as store:
        for i in range(200):
            store.write("r", i, "judge", Outcome({"text": "x" * 500}), 0)
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    content = bytearray((tmp_path / "journal.db").read_bytes())
    content[8192:40960] = b"\xff" * (40960 - 8192)
    (tmp_path / "journal.db").write_bytes(content)
    with pytest.raises(CorruptState, match="damaged"), Store.at(tmp_path):
        pass


def test_somebody_elses_database_is_not_taken_over(tmp_path):
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(CorruptState, match="version None"), Store.at(tmp_path):
        pass


def test_blobs_without_their_journal_are_not_written_over(tmp_path):
    with Store.at(tmp_path) as store:
        store.write("r", 0, "release", Outcome({}, {"model": vector(1)}), 0)
    for file in tmp_path.glob("journal.db*"):
        file.unlink()
    with pytest.raises(CorruptState, match="is missing but"), Store.at(tmp_path):
        pass


def test_a_journal_of_another_version_is_refused(tmp_path):
    with Store.at(tmp_path) as store, store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE meta SET value = '99' WHERE key = 'version'")
    with pytest.raises(CorruptState, match="version 99"), Store.at(tmp_path):
        pass


def test_two_processes_cannot_hold_one_run(store):
    with (
        store.lock("r"),
        Store.at(store.workdir) as other,
        pytest.raises(RunBusy, match="worked on by process"),
        other.lock("r"),
    ):
        pass
    with store.lock("r"):
        pass


def test_what_a_killed_process_left_half_written_is_swept(store):
    store.write("r", 0, "release", Outcome({}, {"model": vector(1)}), 0)
    part = store.workdir / "blobs" / "r" / "r00000" / ".release.safetensors.99999999.part"
    part.write_bytes(b"half")
    with store.lock("r"):
        assert not part.exists()


@pytest.mark.parametrize("place", ["/proc/none", "/dev/null/x"])
def test_a_folder_that_cannot_be_written_is_named(place):
    with pytest.raises(StorageError, match=f"cannot write to {place}"), Store.at(Path(place)):
        pass


def test_addresses_given_once_are_remembered_and_kept_private(tmp_path):
    url = f"sqlite:///{tmp_path}/elsewhere.db"
    with Store.at(tmp_path / "w", url, str(tmp_path / "objects")) as store:
        store.create_run("r", {"a": 1}, {})
        store.write("r", 0, "release", Outcome({}, {"model": vector(1)}), 0)
    assert (tmp_path / "w" / "store.json").stat().st_mode & 0o077 == 0
    with Store.at(tmp_path / "w") as store:
        assert store.runs() == ["r"]
        assert store.url == url
    assert list((tmp_path / "objects").rglob("*.safetensors"))
    (tmp_path / "w" / "store.json").write_text("[]")
    with pytest.raises(CorruptState, match=r"store\.json"), Store.at(tmp_path / "w"):
        pass


def test_an_address_nobody_answers_is_named_without_its_password(tmp_path):
    with (
        pytest.raises(StorageError, match="127.0.0.1") as caught,
        Store.at(tmp_path, "postgresql+psycopg2://me:secret@127.0.0.1:1/none"),
    ):
        pass
    assert "secret" not in str(caught.value)


def test_blobs_can_live_in_any_filesystem(tmp_path):
    with Store.at(tmp_path, blobs="memory://fedcore-test") as store:
        store.write("r", 0, "release", Outcome({}, {"model": vector(3)}), 0)
        kept = store.journal("r", 0).kept("release")
        assert kept is not None
        assert kept.arrays["model"] == vector(3)
