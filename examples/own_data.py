"""A stand-in for your own table: ``patients.csv``, where the column ``hospital`` says whose row it is.

    python examples/own_data.py [FOLDER]

Measurements and diagnoses are the Wisconsin breast cancer set of scikit-learn (569 patients); the five hospitals
are made up, and see different shares of malignant tumours.
"""

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer

HOSPITALS = ("Aspen", "Birch", "Cedar", "Elder", "Hazel")


def patients() -> tuple[list[str], list[list[str]]]:
    """Header and rows as text."""
    known = load_breast_cancer()
    rng = np.random.default_rng(1)
    names = [str(name).replace(" ", "_") for name in known.feature_names[:10]]
    chances = rng.dirichlet([2.0] * len(HOSPITALS), size=2)
    rows = []
    for features, label in zip(known.data[:, :10], known.target, strict=True):
        hospital = HOSPITALS[rng.choice(len(HOSPITALS), p=chances[label])]
        rows.append([hospital, *(f"{value:g}" for value in features), ("malignant", "benign")[label]])
    return ["hospital", *names, "diagnosis"], rows


if __name__ == "__main__":
    file = Path(*sys.argv[1:], "patients.csv")
    header, table = patients()
    file.write_text("\n".join(",".join(line) for line in [header, *table]) + "\n", encoding="utf-8")
    print(f"{file}: {len(table)} rows of {len(HOSPITALS)} clients")
