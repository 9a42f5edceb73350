"""Breast cancer of 1,088 women in six regions (TCGA-BRCA), in the form of FLamby's Fed-TCGA-BRCA: who lives how long.

39 columns as published, mostly zeros and ones, and the age in years; no scaling, as there. The label
is the number of days until death, counted from 1, or minus the days until the woman was last seen
alive. A region is a client; rows stay on the side of FLamby's division. Ogier du Terrail et al.
2022, arXiv:2210.04620; Liu et al. 2018, doi:10.1016/j.cell.2018.02.052.
"""

import csv
from pathlib import Path

import numpy as np

from fedcore.config import DataConfig
from fedcore.data.places import find_folder
from fedcore.data.raw import CLIENT, Raw
from fedcore.data.schema import Schema
from fedcore.errors import BadData

FEATURES = 39
REGIONS = 6


def load(config: DataConfig) -> Raw:
    """All patients by region: see above."""
    return _raw("brca", _patients(), pooled=False)


def load_pooled(config: DataConfig) -> Raw:
    """The same patients as one client: what FLamby's pooled training saw."""
    return _raw("brca-pooled", _patients(), pooled=True)


def _raw(name: str, patients: list[tuple[list[float], float, str, str]], pooled: bool) -> Raw:
    x, label, region, side = (np.array(column) for column in zip(*patients, strict=True))
    schema = Schema(name, "survival", "days", shape=(FEATURES,), split="split")
    clients = np.full(len(x), "pooled") if pooled else region
    return Raw(schema, arrays={"x": x.astype(np.float32), "days": label, CLIENT: clients, "split": side})


def _patients() -> list[tuple[list[float], float, str, str]]:
    """Columns, label, region and side of each patient, in the order of the published table."""
    folder = find_folder(
        "fed_tcga_brca",
        "brca.csv",
        "put brca.csv and train_test_split.csv of FLamby's fed_tcga_brca into a folder fed_tcga_brca there",
    )
    try:
        sides = {line["pid"]: line["fold2"] for line in _lines(folder / "train_test_split.csv")}
        found = [
            (*_numbers(line), *_place(sides[line["pid"]]))
            for line in _lines(folder / "brca.csv")
            if line["pid"] in sides
        ]
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise BadData(
            "brca", f"{folder} does not hold the published files ({error})", "copy them again"
        ) from None
    if not found:
        raise BadData("brca", f"{folder} divides none of its patients", "copy its files again")
    return found


def _lines(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _numbers(line: dict[str, str]) -> tuple[list[float], float]:
    """The columns, and the days: minus them where no death was seen."""
    names = [name for name in line if name and name not in ("pid", "E", "T")]
    if len(names) != FEATURES:
        raise ValueError(f"{len(names)} columns beside pid, E and T, {FEATURES} are needed")
    days = float(line["T"]) + 1
    return [float(line[name]) for name in names], days if float(line["E"]) else -days


def _place(fold: str) -> tuple[str, str]:
    """Region and side of FLamby's name for both, such as ``train_3``."""
    side, region = fold.split("_")
    if int(region) not in range(REGIONS) or side not in ("train", "test"):
        raise ValueError(f"a division {fold!r}")
    return f"region-{region}", side
