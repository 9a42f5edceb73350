"""Sites made by hand: a small schema, and files that keep or break it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedcore.data.schema import Categorical, Numeric, Schema
from fedcore.rng import generator

Rows = dict[str, list[Any]]


@pytest.fixture(scope="session")
def schema() -> Schema:
    """Two numbers, a word, and a label of two classes."""
    return Schema(
        dataset="small",
        task="classification",
        label="sick",
        classes=("0", "1"),
        numeric=(Numeric("age", 0, 120), Numeric("pulse", nullable=True)),
        categorical=(Categorical("ward", ("a", "b")),),
    )


@pytest.fixture(scope="session")
def rows() -> Callable[..., Rows]:
    """Rows that keep the schema, as columns."""

    def make(count: int = 40, seed: int = 1) -> Rows:
        rng = generator(seed, "rows")
        return {
            "age": rng.uniform(20, 90, count).tolist(),
            "pulse": [None if rng.random() < 0.2 else float(p) for p in rng.normal(70, 9, count)],
            "ward": rng.choice(["a", "b"], count).tolist(),
            "sick": rng.integers(0, 2, count).tolist(),
        }

    return make


@pytest.fixture(scope="session")
def lay() -> Callable[[Path, Rows], Path]:
    """Writes columns to a parquet, CSV or npz file and gives its folder."""

    def write(file: Path, columns: Rows) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".parquet":
            pq.write_table(pa.table(columns), file)
        elif file.suffix == ".npz":
            np.savez(file, **{name: np.array(column) for name, column in columns.items()})
        else:
            cells = [
                ["" if cell is None else str(cell) for cell in row]
                for row in zip(*columns.values(), strict=True)
            ]
            file.write_text("\n".join(",".join(line) for line in [list(columns), *cells]) + "\n")
        return file.parent

    return write
