"""A cell that was interrupted goes on where it was, and comes to the same scores as one that was not."""

import hashlib
import math

import pytest

from fedcore.errors import CorruptState, StorageError
from fedcore.tables import Asked, fill
from fedcore.tables.halfway import Halfway
from fedcore.tables.table import Cell, Part
from fedcore.tables.training import train

ROWS = {
    "FedAdam": {"server": {"optimizer": "adam", "lr": 0.01}},
    "SCAFFOLD": {"local": {"algorithm": "scaffold"}},
    "Ditto": {"personal": {"algorithm": "ditto"}},
    "clipped": {"combine": {"rule": "centered_clipping", "options": {"radius": 1.0}}},
    "sampled": {"cohort": {"sampling": "fair", "size": 2}},
}


class Killed(Exception):
    """Stands for a process that ends: nothing after the round is done."""


@pytest.mark.parametrize("name", ROWS)
def test_a_killed_cell_comes_to_the_scores_of_one_that_was_not(name, table, ground, tmp_path):
    row = Part(name, ROWS[name])
    tiny = table(rows=(row,))
    cell = Cell(row, Part("longer", {"run": {"rounds": 5}}), 1)
    halfway, told = Halfway(tmp_path / "half", every=0), []

    def heard(done):
        told.append(done)
        if done in (2, 4) and told.count(done) == 1:
            raise Killed

    for _ in range(2):
        with pytest.raises(Killed):
            train(tiny, cell, ground, heard=heard, halfway=halfway)
    resumed = train(tiny, cell, ground, heard=heard, halfway=halfway)
    assert told == [1, 2, 3, 4, 5]
    whole = train(tiny, cell, ground)
    assert (resumed.scores, resumed.score) == (whole.scores, whole.score)
    assert len(list((tmp_path / "half").iterdir())) == 1
    standing = halfway.last()
    halfway.reached(standing, next((tmp_path / "half").glob("*/clients")))  # as a second process would
    assert halfway.last().scores == standing.scores
    assert len(list(tmp_path.iterdir())) == 1
    halfway.over()
    assert list(tmp_path.iterdir()) == []


def test_a_standing_is_kept_once_in_a_while(table, ground, tmp_path):
    tiny = table()
    halfway = Halfway(tmp_path / "half", every=math.inf)
    train(tiny, Cell(tiny.rows[0], tiny.columns[0], 1, 2), ground, halfway=halfway)
    assert halfway.last() is None


def test_the_standings_of_finished_cells_are_forgotten(table, tmp_path):
    fill(Asked(table(), 1, 1, ("FedAvg", "slow")), tmp_path)
    assert list((tmp_path / "halfway").iterdir()) == []


def test_what_a_dead_process_left_half_written_is_cleared(table, ground, tmp_path):
    left = tmp_path / ".half-0a1b.4194305.part"  # above the largest process number
    left.mkdir()
    tiny = table()
    train(tiny, Cell(tiny.rows[0], tiny.columns[0], 1, 1), ground, halfway=Halfway(tmp_path / "half"))
    assert not left.exists()


@pytest.mark.parametrize("content", [b"", b"torn", b"\x02\0\0\0\0\0\0\0{}"])
def test_a_standing_that_is_none_is_one_sentence(content, tmp_path):
    folder = tmp_path / "half" / f"r00001-{hashlib.sha256(content).hexdigest()}"
    folder.mkdir(parents=True)
    (folder / "state.safetensors").write_bytes(content)
    with pytest.raises(CorruptState, match="is no standing of a training .* to train the cell anew"):
        Halfway(tmp_path / "half").last()


def test_a_standing_that_was_changed_is_not_gone_on_from(table, ground, tmp_path):
    tiny = table()
    halfway = Halfway(tmp_path / "half", every=0)
    train(tiny, Cell(tiny.rows[0], tiny.columns[0], 1, 1), ground, halfway=halfway)
    (file,) = (tmp_path / "half").glob("*/state.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CorruptState, match="does not match its digest"):
        halfway.last()


def test_where_nothing_can_be_written_it_is_one_sentence(table, ground, tmp_path):
    (tmp_path / "file").touch()
    tiny = table()
    cell = Cell(tiny.rows[0], tiny.columns[0], 1, 1)
    with pytest.raises(StorageError, match="cannot write"):
        train(tiny, cell, ground, halfway=Halfway(tmp_path / "file" / "half"))
    halfway = Halfway(tmp_path / "half", every=0)
    (tmp_path / "half").touch()  # a file where the standings should be
    with pytest.raises(StorageError, match="cannot write"):
        train(tiny, cell, ground, halfway=halfway)


def test_without_hard_links_what_clients_keep_is_copied(table, ground, tmp_path, monkeypatch):
    row = Part("Ditto", ROWS["Ditto"])
    tiny = table(rows=(row,))
    cell, halfway = Cell(row, tiny.columns[0], 1, 1), Halfway(tmp_path / "half", every=0)
    train(tiny, cell, ground)  # prepares the data, whose sites' keys are links
    monkeypatch.setattr("os.link", refused)
    train(tiny, cell, ground, halfway=halfway)
    (kept,) = (tmp_path / "half").iterdir()
    assert len(list(kept.glob("clients/*/r00000.safetensors"))) == 3


def refused(source, target):
    """A file system without hard links."""
    raise PermissionError(1, "Operation not permitted")
