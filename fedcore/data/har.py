"""What 30 people do, from the phone at their waist: UCI HAR, windows of 128 readings of 9 signals, 50 a second.

Signals are the body's acceleration, its rotation and the whole acceleration, along x, y and z.
Neighbouring windows share half their readings, so a window drawn for the test would be known from
training: PFLlib's random division leaks in that way, and is not offered. Windows of every fourth
segment, a stretch of one activity of one person, are the test of that person: no reading is on both
sides. Anguita et al. 2013, ESANN.
"""

import zipfile
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.config import DataConfig
from fedcore.data.places import find_folder
from fedcore.data.raw import CLIENT, Raw
from fedcore.data.schema import Schema
from fedcore.data.shards import TEST, TRAIN
from fedcore.errors import BadData

ACTIVITIES = ("walking", "upstairs", "downstairs", "sitting", "standing", "laying")
SIGNALS, HALF = 9, 64
SCHEMA = Schema("uci-har", "classification", "activity", ACTIVITIES, shape=(2 * HALF, SIGNALS), split="split")
_FIELDS = "planes, first, y, subject and segment"


def load(config: DataConfig) -> Raw:
    """The windows (128, 9) by ``subject-NN``, always divided by segment: see above."""
    folder = find_folder(
        "uci_har", "uci_har.npz", f"put uci_har.npz (arrays {_FIELDS}) into a folder uci_har there"
    )
    file = folder / "uci_har.npz"
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            x = _windows(arrays["planes"], arrays["first"])
            activity, subject, segment = (arrays[name] for name in ("y", "subject", "segment"))
        if not len(x) == len(activity) == len(subject) == len(segment):
            raise ValueError(f"y, subject and segment must have the {len(x)} rows of first")
        labels = np.array(ACTIVITIES)[activity]
    except (OSError, EOFError, KeyError, ValueError, IndexError, zipfile.BadZipFile, zlib.error) as error:
        raise BadData("uci-har", f"{file} does not hold its arrays ({error})", "copy it again") from None
    clients = np.array([f"subject-{number:02d}" for number in subject])
    sides = np.where(segment % 4 == 3, TEST, TRAIN)
    return Raw(SCHEMA, arrays={"x": x, "activity": labels, CLIENT: clients, "split": sides})


def _windows(planes: NDArray[np.uint8], first: NDArray[Any]) -> NDArray[np.float32]:
    """Windows (n, 128, 9): half window `first`, and the one after it.

    `planes` (4, numbers) are the bytes of all half windows' float32, lowest first: signal, half, reading.
    """
    numbers = np.ascontiguousarray(planes.T).view("<f4")
    halves = numbers.reshape(SIGNALS, -1, HALF).transpose(1, 2, 0)
    return np.concatenate([halves[first], halves[first + 1]], axis=1)
