"""What an update of a dense network says without any search: labels from its last layer, rows from its first.

Both hold for one client's whole training, however many steps it took, for they are ratios of sums.
"""

import numpy as np

from fedcore.types import Floats, Layout, Vector

_NOTHING = 1e-12  # a change of a bias below this says nothing
_SAME = 1e-3  # mean squared distance under which two rows count as one


def labels(update: Vector, layout: Layout, rows: int, travel: float) -> list[int]:
    """The labels of `rows` rows, sorted, as the last bias tells them.

    Its mean gradient is p - y, and p is near one share a class in an untrained model. `travel` is
    learning rate times steps. With one row it is the class whose bias rose most: Zhao et al. 2020
    (iDLG), arXiv:2001.02610; counts of classes: Wainakh et al. 2022, arXiv:2105.09369.
    """
    risen = list(layout.split(update).values())[-1].astype(np.float64) / travel
    expected = np.maximum(rows * (1 / len(risen) + risen), 0)
    expected *= rows / expected.sum()
    counts = np.floor(expected).astype(int)
    most = np.argsort(-(expected - counts), kind="stable")[: rows - counts.sum()]
    counts[most] += 1
    return [label for label, count in enumerate(counts) for _ in range(count)]


def first_layer_rows(update: Vector, layout: Layout) -> tuple[Floats, Floats]:
    """Rows (units, inputs) that went through the first layer's units, and how far each unit's bias moved.

    A unit's weights move by Σ δ x and its bias by Σ δ, so their ratio is the row itself where one
    row alone reached the unit, and a mixture of rows elsewhere. Units that did not move are left
    out. Phong et al. 2018, IEEE TIFS 13(5), section III.
    """
    weight, bias = (part.astype(np.float64) for part in list(layout.split(update).values())[:2])
    moved = np.abs(bias) > _NOTHING
    return weight[moved] / bias[moved, None], np.abs(bias[moved])


def distinct(candidates: Floats, strength: Floats, count: int) -> Floats:
    """`count` pictures in [0, 1] out of `candidates` (m, inputs), those first that fit into the range.

    A mixture with a negative share leaves the range; of those inside, units that moved further are
    more precise. A candidate like one already taken waits; where there are too few the rest is grey.
    """
    outside = np.abs(candidates - np.clip(candidates, 0, 1)).mean(axis=1)
    order = sorted(range(len(candidates)), key=lambda i: (round(float(outside[i]), 2), -strength[i]))
    taken: list[Floats] = []
    waiting: list[Floats] = []
    for i in order:
        picture = np.clip(candidates[i], 0, 1)
        known = any(((picture - other) ** 2).mean() < _SAME for other in taken)
        (waiting if known else taken).append(picture)
    grey = [np.full(candidates.shape[1], 0.5)] * count
    return np.stack([*taken, *waiting, *grey][:count])
