"""How like an original a reconstructed picture is, and which reconstruction belongs to which original."""

from collections.abc import Sequence

import numpy as np

from fedcore.types import Floats

_EXACT = 1e-10  # squared error that counts as none: 100 dB


def mse(original: Floats, guess: Floats) -> float:
    """Mean squared error of pixels in [0, 1]."""
    return float(((original - guess) ** 2).mean())


def psnr(error: float) -> float:
    """Peak signal-to-noise ratio in dB of a mean squared error of pixels in [0, 1], at most 100.

    >>> psnr(0.01)
    20.0
    """
    return float(-10 * np.log10(max(error, _EXACT)))


def ssim(original: Floats, guess: Floats, window: int = 7) -> float:
    """Mean structural similarity of two pictures (height, width) in [0, 1]; 1 for equal ones.

    Over all square windows that lie inside, unweighted. Wang et al. 2004, IEEE TIP 13(4), equation 13.
    """
    size = min(window, *original.shape)
    x, y = (np.lib.stride_tricks.sliding_window_view(p, (size, size)) for p in (original, guess))
    mean_x, mean_y = x.mean(axis=(-1, -2)), y.mean(axis=(-1, -2))
    unbiased = size**2 / (size**2 - 1)
    var_x, var_y = x.var(axis=(-1, -2)) * unbiased, y.var(axis=(-1, -2)) * unbiased
    both = ((x * y).mean(axis=(-1, -2)) - mean_x * mean_y) * unbiased
    light, contrast = 0.01**2, 0.03**2
    likeness = (2 * mean_x * mean_y + light) * (2 * both + contrast)
    likeness /= (mean_x**2 + mean_y**2 + light) * (var_x + var_y + contrast)
    return float(likeness.mean())


def matched(originals: Floats, guesses: Floats) -> Floats:
    """Of `guesses` (m, …) one for each of `originals` (n, …), m ≥ n: the closest pair first, each used once."""
    errors = np.array([[mse(original, guess) for guess in guesses] for original in originals])
    found = np.empty_like(originals)
    for _ in range(len(originals)):
        row, column = np.unravel_index(np.argmin(errors), errors.shape)
        found[row] = guesses[column]
        errors[row], errors[:, column] = np.inf, np.inf
    return found


def overlap(truth: Sequence[int], guess: Sequence[int]) -> float:
    """The share of `truth` that `guess` holds as well, both as bags.

    >>> overlap([1, 1, 2], [1, 2, 2])
    0.6666666666666666
    """
    left = list(guess)
    hits = 0
    for label in truth:
        if label in left:
            left.remove(label)
            hits += 1
    return hits / len(truth)
