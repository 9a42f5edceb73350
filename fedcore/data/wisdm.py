"""What 36 people do, from the phone in their pocket: WISDM 1.1, 43 numbers of each ten seconds of acceleration.

Shares of ten bins, mean, time between peaks, deviations along x, y and z, and the length; the time
between peaks is missing where there were none. Windows do not overlap. A stretch of user 19 stands in
the published file twice: 61 windows that repeat another are left out, lest they be on both sides.
Kwapisz, Weiss, Moore 2010, doi:10.1145/1964897.1964918.
"""

import hashlib

from fedcore.config import DataConfig
from fedcore.data.places import find_folder
from fedcore.data.raw import CLIENT, Raw
from fedcore.data.schema import Numeric, Schema
from fedcore.errors import BadData

FILE = "WISDM_ar_v1.1_transformed.arff"
SHA256 = "b083abfe759dea1b8f5eae01f2bef135bbecb25246c8d1eb52afdbfadd3e883a"
AXES = ("X", "Y", "Z")
SCHEMA = Schema(
    dataset="wisdm",
    task="classification",
    label="activity",
    classes=("Walking", "Jogging", "Upstairs", "Downstairs", "Sitting", "Standing"),
    numeric=(
        *(Numeric(f"{axis}{number}", 0, 1) for axis in AXES for number in range(10)),
        *(Numeric(f"{axis}AVG") for axis in AXES),
        *(Numeric(f"{axis}PEAK", 0, nullable=True) for axis in AXES),
        *(Numeric(f"{axis}{name}", 0) for name in ("ABSOLDEV", "STANDDEV") for axis in AXES),
        Numeric("RESULTANT", 0),
    ),
)


def load(config: DataConfig) -> Raw:
    """The windows by ``user-NN``, in the order of the published file."""
    folder = find_folder("wisdm_har", FILE, f"put {FILE} into a folder wisdm_har there")
    file = folder / FILE
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BadData("wisdm", f"cannot read {file}: {error.strerror}", "copy it again") from None
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise BadData("wisdm", f"{file} is not the published file (SHA-256)", "copy it again")
    import pyarrow as pa

    lines = content.decode("ascii").partition("@data")[2].split()
    windows = dict.fromkeys(line.partition(",")[2] for line in lines)  # a window's number is no part of it
    return Raw(SCHEMA, table=pa.Table.from_pylist([_window(window) for window in windows]))


def _window(line: str) -> dict[str, object]:
    """The user, the numbers with None for what is missing, and the activity of ``user,X0,…,RESULTANT,activity``."""
    user, *cells, activity = line.split(",")
    numbers = [None if cell == "?" else float(cell) for cell in cells]
    return {
        CLIENT: f"user-{int(user):02d}",
        **dict(zip(SCHEMA.columns, numbers, strict=True)),
        SCHEMA.label: activity,
    }
