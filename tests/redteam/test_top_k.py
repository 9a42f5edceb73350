"""Top-k keeps the largest coordinates, and its bound holds."""

import numpy as np
import pytest

from fedcore.errors import BadInput
from fedcore.transforms.clip import norm
from fedcore.transforms.top_k import top_k


def kept(update, share):
    transform = top_k(share)
    return transform.apply(update, transform.init(), np.random.default_rng(0))[0]


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("size", [1, 10, 1001])
def test_as_many_coordinates_stay_as_asked_and_none_left_out_is_larger(share, size, rng):
    update = rng.standard_normal(size).astype(np.float32)
    sparse = kept(update, share)
    stays = sparse != 0
    assert stays.sum() == int(np.ceil(share * size))
    np.testing.assert_array_equal(sparse[stays], update[stays])
    assert np.abs(update[~stays]).max(initial=0) <= np.abs(update[stays]).min()


def test_the_norm_never_grows_beyond_the_bound(rng):
    update = rng.standard_normal(300).astype(np.float32)
    assert norm(kept(update, 0.1)) <= top_k(0.1).bound(norm(update))


def test_of_equal_coordinates_the_first_stay_and_the_input_is_untouched():
    update = np.array([1, -1, 1, -1], np.float32)
    np.testing.assert_array_equal(kept(update, 0.5), [1, -1, 0, 0])
    np.testing.assert_array_equal(update, [1, -1, 1, -1])


@pytest.mark.parametrize("share", [0, -0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(BadInput, match="above 0 and at most 1"):
        top_k(share)
