"""Heart disease in 4 hospitals (UCI, Janosi et al. 1988), in the form of FLamby's Fed-Heart-Disease.

As there, columns 10 to 12 and then patients with a missing value are left out: 740 patients
remain. FLamby's own division into training and test is kept in the column ``flamby_split``.
`load_flamby` lays down the numbers that its published results were trained on. Ogier du Terrail
et al. 2022, arXiv:2210.04620.
"""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np

from fedcore.config import DataConfig
from fedcore.data.places import find_folder
from fedcore.data.raw import CLIENT, Raw
from fedcore.data.schema import Categorical, Numeric, Schema
from fedcore.data.shards import TRAIN
from fedcore.errors import BadData

HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
SCHEMA = Schema(
    dataset="heart",
    task="classification",
    label="disease",
    classes=("0", "1"),
    numeric=(
        Numeric("age", 0, 120),
        Numeric("sex", 0, 1),
        Numeric("trestbps", 0, 300),
        Numeric("chol", 0, 1000),
        Numeric("fbs", 0, 1),
        Numeric("thalach", 0, 300),
        Numeric("exang", 0, 1),
        Numeric("oldpeak", -10, 10),
    ),
    categorical=(Categorical("cp", ("1", "2", "3", "4")), Categorical("restecg", ("0", "1", "2"))),
    unique=("hospital", "row"),
)
_DUMMIES = (("cp", "2"), ("cp", "3"), ("cp", "4"), ("restecg", "1"), ("restecg", "2"))
_FLAT = 1e-9  # a smaller deviation is rounding: nobody differs
_NAMES = ("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak")


def load(config: DataConfig) -> Raw:
    """The patients of all hospitals; `row` is the line of the hospital's file, from 0."""
    folder = find_folder(
        "fed_heart_disease",
        "processed.cleveland.data",
        "put processed.{cleveland,hungarian,switzerland,va}.data of the UCI Heart Disease set into "
        "a folder fed_heart_disease there",
    )
    import pyarrow as pa

    file = folder / "flamby_split.csv"
    if config.published_split and not file.is_file():
        raise BadData(
            "heart", f"there is no {file}", "put FLamby's division (center,row,split) there, or draw one"
        )
    split = _split(file)
    rows = [row for hospital in HOSPITALS for row in _hospital(folder, hospital, split)]
    schema = replace(SCHEMA, split="flamby_split") if config.published_split else SCHEMA
    return Raw(schema, table=pa.Table.from_pylist(rows))


def load_flamby(config: DataConfig) -> Raw:
    """13 columns of each patient, scaled by what the hospital's own training patients show; always divided.

    A column in which a hospital's training patients do not differ becomes 0. FLamby's order: the
    numbers, then chest pain 2 to 4 and electrocardiogram 1 and 2 as zeros and ones.
    """
    return _flamby("heart-flamby", load(replace(config, published_split=True)), pooled=False)


def load_flamby_pooled(config: DataConfig) -> Raw:
    """The same patients as one client, scaled by all training patients together: what pooled training saw."""
    return _flamby("heart-flamby-pooled", load(replace(config, published_split=True)), pooled=True)


def _flamby(name: str, raw: Raw, pooled: bool) -> Raw:
    assert raw.table is not None
    cells = {column: np.array(raw.table[column].to_pylist()) for column in raw.table.column_names}
    numbers = [cells[column] for column in _NAMES if column not in ("cp", "restecg")]
    words = [cells[column] == value for column, value in _DUMMIES]
    x = np.column_stack([*numbers, *words]).astype(np.float64)
    hospitals = np.full(len(x), "pooled") if pooled else cells[CLIENT]
    for hospital in np.unique(hospitals):
        own = hospitals == hospital
        train = x[own & (cells["flamby_split"] == TRAIN)]
        deviation = train.std(axis=0, ddof=1) if len(train) > 1 else np.ones(x.shape[1])
        x[own] = (x[own] - train.mean(axis=0)) / np.where(deviation > _FLAT, deviation, 1.0)
    schema = Schema(name, "classification", "disease", ("0", "1"), shape=(13,), split="split")
    arrays = {"x": x.astype(np.float32), "disease": cells["disease"], CLIENT: hospitals}
    return Raw(schema, arrays={**arrays, "split": cells["flamby_split"]})


def _hospital(folder: Path, hospital: str, split: dict[tuple[str, int], str]) -> list[dict[str, object]]:
    file = folder / f"processed.{hospital}.data"
    try:
        with file.open(encoding="ascii", newline="") as stream:
            return [
                _patient(cells, hospital, row, split.get((hospital, row), ""))
                for row, cells in enumerate(csv.reader(stream))
                if "?" not in cells[:10] + cells[13:]
            ]
    except (OSError, ValueError, IndexError) as error:
        raise BadData("heart", f"{file} is not the published file ({error})", "copy it again") from None


def _patient(cells: list[str], hospital: str, row: int, part: str) -> dict[str, object]:
    values: dict[str, object] = dict(zip(_NAMES, map(float, cells[:10]), strict=True))
    words = {name: str(int(float(cells[_NAMES.index(name)]))) for name in ("cp", "restecg")}
    disease = int(float(cells[13]) > 0)
    return (
        {CLIENT: hospital, "hospital": hospital, "row": row, "flamby_split": part}
        | values
        | words
        | {"disease": disease}
    )


def _split(file: Path) -> dict[tuple[str, int], str]:
    """FLamby's division, empty where the file is not there: it is not needed to train."""
    if not file.is_file():
        return {}
    with file.open(encoding="ascii", newline="") as stream:
        return {(line["center"], int(line["row"])): line["split"] for line in csv.DictReader(stream)}
