"""The picture of a partition is drawn for every kind of label and for sites that cannot be read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedcore.data.picture import draw_partition
from fedcore.data.schema import Numeric, Schema
from fedcore.errors import BadData, StorageError

Rows = Callable[..., dict[str, list[Any]]]
Lay = Callable[[Path, dict[str, list[Any]]], Path]


def test_each_site_and_label_is_named(tmp_path: Path, schema: Schema, rows: Rows, lay: Lay) -> None:
    lay(tmp_path / "sites" / "north" / "1.csv", rows(30))
    lay(tmp_path / "sites" / "south" / "1.parquet", rows(9))
    (tmp_path / "sites" / "void").mkdir()
    drawn = draw_partition(tmp_path / "sites", schema, tmp_path / "new" / "p.svg").read_text()
    for text in ("north", "south", "void", "cannot be read", "sick", "small: 39 rows at 3 sites"):
        assert f"<!-- {text} -->" in drawn


@pytest.mark.parametrize("readable", [True, False])
def test_numbers_are_drawn_by_fifths(readable: bool, tmp_path: Path, lay: Lay) -> None:
    schema = Schema("prices", "regression", "price", numeric=(Numeric("size"),))
    for i in range(3):
        lay(
            tmp_path / "sites" / f"s{i}" / "1.csv",
            {"size": range(10), "price": range(i, i + 10)} if readable else {"size": [1]},
        )
    drawn = draw_partition(tmp_path / "sites", schema, tmp_path / "p.svg").read_text()
    assert "<!-- highest fifth -->" in drawn


def test_many_sites_and_classes_are_drawn_without_names(tmp_path: Path) -> None:
    schema = Schema("p", "classification", "y", tuple(map(str, range(25))), shape=(1,))
    for i in range(45):
        (tmp_path / "sites" / f"c{i}").mkdir(parents=True)
        np.savez(tmp_path / "sites" / f"c{i}" / "1.npz", x=np.zeros((5, 1)), y=np.arange(5) + i % 20)
    drawn = draw_partition(tmp_path / "sites", schema, tmp_path / "p.png")
    assert drawn.read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["p.png"]


def test_a_picture_of_nothing_or_into_nowhere_is_refused(
    tmp_path: Path, schema: Schema, rows: Rows, lay: Lay
) -> None:
    with pytest.raises(BadData, match="holds no sites"):
        draw_partition(tmp_path, schema, tmp_path / "p.png")
    lay(tmp_path / "s" / "1.csv", rows(3))
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        draw_partition(tmp_path, schema, tmp_path / "file" / "p.png")
