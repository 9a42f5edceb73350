"""Vectors become a matrix, copied only where they must be, and are looked at in threads in their order."""

import numpy as np
import pytest

from fedcore.rules.blocks import over_rows, stacked

WHOLE = np.arange(12, dtype=np.float32).reshape(4, 3)


def test_the_rows_of_one_matrix_are_not_copied():
    assert stacked(list(WHOLE.copy())).base is None
    whole = WHOLE.copy()
    assert stacked(list(whole)) is whole


@pytest.mark.parametrize(
    "pick",
    [
        lambda whole: [whole[1], whole[0], whole[2], whole[3]],
        lambda whole: list(whole[:3]),
        lambda whole: [*whole[:3], whole[3].copy()],
        lambda whole: list(whole[:, :2]),
        lambda whole: list(np.asfortranarray(whole)),
        lambda whole: [whole[0], whole[0], whole[2], whole[3]],
    ],
)
def test_other_rows_are_copied_in_their_order(pick):
    rows = pick(WHOLE.copy())
    np.testing.assert_array_equal(stacked(rows), np.stack(rows))


def test_rows_of_a_mapped_file_are_copied(tmp_path):
    mapped = np.lib.format.open_memmap(tmp_path / "rows.npy", mode="w+", dtype=np.float32, shape=(4, 3))
    mapped[...] = WHOLE
    found = stacked(list(np.asarray(mapped)))
    (tmp_path / "rows.npy").unlink()
    np.testing.assert_array_equal(found, WHOLE)
    assert type(found) is np.ndarray


@pytest.mark.parametrize("size", [3, 2**21])
def test_what_is_seen_over_rows_is_in_order(size):
    vectors = [np.full(size, i, np.float32) for i in range(5)]
    assert over_rows(lambda vector: float(vector[-1]), vectors) == [0, 1, 2, 3, 4]
