"""Held-out raw rows of all sites, to compare an exported model with the one it was made from."""

from pathlib import Path

import numpy as np

from fedcore.data.features import Columns
from fedcore.data.federated import read_columns, sides
from fedcore.data.schema import Schema
from fedcore.errors import BadData, BadInput

PER_SITE = 1000


def held_out(
    sites: Path, schema: Schema, seed: int, test_fraction: float, per_site: int = PER_SITE
) -> Columns:
    """The first `per_site` test rows of every site folder in `sites`, as raw columns.

    A site whose data cannot be used took no part in training and is passed over. Raises
    `BadInput` when no site is left.
    """
    parts: list[Columns] = []
    for folder in sorted(path for path in sites.glob("*") if path.is_dir()):
        try:
            columns, _ = read_columns(folder, schema)
        except BadData:
            continue
        _, test = sides(columns, schema, seed, folder.name, test_fraction)
        parts.append({name: column[test[:per_site]] for name, column in columns.items()})
    if not parts:
        raise BadInput(
            f"{sites} holds no usable site; name the folder of sites that the partition stage wrote"
        )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
