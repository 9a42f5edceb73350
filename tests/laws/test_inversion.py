"""What an update gives away: exactly where one row went through the first layer, hardly under noise."""

import numpy as np
import pytest

from fedcore.adapters.layers import built_in_layout
from fedcore.adapters.model import ModelSpec, Training
from fedcore.adapters.pytorch import TorchModel
from fedcore.redteam.analytic import distinct, first_layer_rows, labels
from fedcore.redteam.gradient_matching import Sight, dlg, inverting
from fedcore.redteam.likeness import matched, mse, overlap, psnr, ssim
from fedcore.redteam.variants import noise
from fedcore.transforms.clip import clip

SHAPE = (6, 6)
SPEC = ModelSpec("torch", "mlp", (24,), None, SHAPE, 4, "classification")
LR = 0.1


def update(pictures, y, steps=1):
    model = TorchModel(SPEC)
    start = model.init(np.random.default_rng(1))
    settings = Training(LR, 0.0, 0.0, steps, len(y))
    x, y = pictures.astype(np.float32), np.array(y, np.float32)
    trained, _ = model.train(start, x, y, settings, np.random.default_rng(2))
    return model, start, trained - start


def sight(pictures, y, steps=1, change=lambda sent: sent):
    model, start, sent = update(pictures, y, steps)
    return Sight(model, start, change(sent), LR, steps, np.zeros(SHAPE), np.ones(SHAPE), tuple(y))


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("limit", [None, 0.01])
def test_the_first_layer_gives_a_single_row_away_exactly_clipped_or_not(steps, limit, rng):
    picture = rng.random((1, *SHAPE))
    _, _, sent = update(picture, [2], steps)
    sent = sent if limit is None else clip(limit).apply(sent, (), rng)[0]
    found = distinct(*first_layer_rows(sent, built_in_layout(SPEC)), 1)
    np.testing.assert_allclose(found[0], picture.ravel(), atol=1e-3)
    assert labels(sent, built_in_layout(SPEC), 1, LR * steps) == [2]


def test_labels_of_a_batch_are_counted(rng):
    _, _, sent = update(rng.random((6, *SHAPE)), [0, 1, 1, 3, 3, 3])
    assert labels(sent, built_in_layout(SPEC), 6, LR) == [0, 1, 1, 3, 3, 3]


def test_an_update_of_zeros_gives_nothing_away():
    nothing = np.zeros(built_in_layout(SPEC).size, np.float32)
    rows, strength = first_layer_rows(nothing, built_in_layout(SPEC))
    assert rows.shape == (0, 36)
    assert (distinct(rows, strength, 2) == 0.5).all()
    assert len(labels(nothing, built_in_layout(SPEC), 3, LR)) == 3


@pytest.mark.parametrize("search", [dlg, inverting])
@pytest.mark.parametrize("steps", [1, 3])
def test_a_search_comes_closer_to_the_update_and_to_the_picture(search, steps, rng):
    picture = rng.random((1, *SHAPE))
    found = search(sight(picture, [1], steps), np.random.default_rng(3), 10 if search is dlg else 150)
    assert found.after < 0.1 * found.before
    assert psnr(mse(picture, found.pictures)) > 15
    assert 0 <= found.pictures.min() <= found.pictures.max() <= 1


def test_a_search_repeats(rng):
    seen = sight(rng.random((2, *SHAPE)), [0, 3])
    first, second = (dlg(seen, np.random.default_rng(4), 2) for _ in range(2))
    assert first.pictures.tobytes() == second.pictures.tobytes()
    assert first.after == second.after


@pytest.mark.parametrize("search", ["first layer", "DLG"])
def test_noise_defeats_it(search, rng):
    """PSNR falls by more than 10 dB from no noise to noise as strong as one clip in every coordinate."""
    picture = rng.random((1, *SHAPE))

    def noisy(sent):
        clipped = clip(0.1).apply(sent, (), rng)[0]
        return noise(0.1).apply(clipped, (), np.random.default_rng(6))[0]

    got = []
    for change in (lambda sent: sent, noisy):
        seen = sight(picture, [1], change=change)
        if search == "DLG":
            guess = dlg(seen, np.random.default_rng(3), 5).pictures
        else:
            guess = distinct(*first_layer_rows(seen.update, built_in_layout(SPEC)), 1).reshape(1, *SHAPE)
        got.append(psnr(mse(picture, guess)))
    assert got[0] > got[1] + 10


def brute_ssim(x, y, size):
    values = []
    for i in range(x.shape[0] - size + 1):
        for j in range(x.shape[1] - size + 1):
            a, b = x[i : i + size, j : j + size].ravel(), y[i : i + size, j : j + size].ravel()
            both = np.cov(a, b)
            up = (2 * a.mean() * b.mean() + 1e-4) * (2 * both[0, 1] + 9e-4)
            down = (a.mean() ** 2 + b.mean() ** 2 + 1e-4) * (both[0, 0] + both[1, 1] + 9e-4)
            values.append(up / down)
    return np.mean(values)


@pytest.mark.parametrize(("side", "size"), [(8, 7), (12, 7), (5, 5)])
def test_ssim_is_the_formula_over_all_windows(side, size, rng):
    x, y = rng.random((side, side)), rng.random((side, side))
    assert ssim(x, y) == pytest.approx(brute_ssim(x, y, size))
    assert ssim(x, x) == pytest.approx(1.0)


def test_reconstructions_go_to_the_closest_original_once(rng):
    originals = rng.random((3, 4, 4))
    guesses = np.concatenate([originals[[2, 0, 1]] + 0.01, rng.random((2, 4, 4)) + 5])
    np.testing.assert_allclose(matched(originals, guesses), originals + 0.01)


def test_psnr_and_bags_of_labels():
    assert psnr(0.0) == 100.0
    assert psnr(1.0) == 0.0
    assert overlap([1, 2], [2, 2]) == 0.5
