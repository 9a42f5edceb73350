"""The last layers stay with the client, the rest is trained by all: FedPer and FedRep.

Nothing of the head is sent: the update is zero there, so the model of all keeps the head it began with.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedcore.local.work import Trained, Work
from fedcore.types import Layout, Vector


def fedper(work: Work) -> Trained:
    """Head and body are trained together. Arivazhagan et al. 2019, arXiv:1912.00818, algorithm 1."""
    begin, head = joined(work), head_of(work.model.layout, work.options.head)
    update, facts = work.base(work.model, begin, work.data, work.settings, work.rng)
    return _split(begin + update, update, head, facts["loss"])


def fedrep(work: Work) -> Trained:
    """The head is trained for its epochs while the body stays, then the body while the head stays.

    Collins, Hassani, Mokhtari, Shakkottai 2021, arXiv:2102.07078, algorithm 1.
    """
    x, y, begin = work.data.x_train, work.data.y_train, joined(work)
    head = head_of(work.model.layout, work.options.head)
    first = replace(work.settings, epochs=work.options.head_epochs, mask=head.astype(np.float32))
    second = replace(work.settings, mask=(~head).astype(np.float32))
    middle, _ = work.model.train(begin, x, y, first, work.own)
    trained, facts = work.model.train(middle, x, y, second, work.rng)
    return _split(trained, trained - begin, head, facts["loss"])


def joined(work: Work) -> Vector:
    """The body of the model of all with the client's head; the head all began with, if it never took part."""
    vector, head = work.start.copy(), head_of(work.model.layout, work.options.head)
    if "head" in work.kept:
        vector[head] = work.kept["head"]
    return vector


def head_of(layout: Layout, layers: int) -> NDArray[np.bool_]:
    """Where a vector (d,) holds the last `layers` layers: parameters whose names agree up to the last dot."""
    names = list(dict.fromkeys(name.rpartition(".")[0] for name in layout.names))
    last = set(names[max(0, len(names) - layers) :])
    sizes = [int(np.prod(shape, dtype=np.int64)) for shape in layout.shapes]
    return np.repeat([name.rpartition(".")[0] in last for name in layout.names], sizes)


def layers(layout: Layout) -> int:
    """The number of layers."""
    return len({name.rpartition(".")[0] for name in layout.names})


def _split(trained: Vector, update: Vector, head: NDArray[np.bool_], loss: float) -> Trained:
    """What is sent, zero on the head, and the head, which is kept."""
    return Trained(np.where(head, np.float32(0), update), {"loss": loss}, {"head": trained[head]})
