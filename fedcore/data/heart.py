"""Heart disease in 4 hospitals (UCI, Janosi et al. 1988), in the form of FLamby's Fed-Heart-Disease.

As there, columns 10 to 12 and then patients with a missing value are left out: 740 patients
remain. FLamby's own division into training and test is kept in the column ``flamby_split``.
"""

import csv
from pathlib import Path

from fedcore.config import DataConfig
from fedcore.data.places import find_folder
from fedcore.data.raw import CLIENT, Raw
from fedcore.data.schema import Categorical, Numeric, Schema
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

    split = _split(folder / "flamby_split.csv")
    rows = [row for hospital in HOSPITALS for row in _hospital(folder, hospital, split)]
    return Raw(SCHEMA, table=pa.Table.from_pylist(rows))


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
