#!/usr/bin/env python
"""FLamby's first region of breast cancer patients trained alone, in plain PyTorch: a check on ``fedcore tables brca``.

The published cell is high for what Adam gives: nothing of fedcore trains or scores here. FLamby's settings: a linear Cox
model, Adam at 0.1, 30 epochs in batches of 8; the score is the mean of the six regions' own concordance indices.

    FEDCORE_DATA=DATA python benchmarks/brca_in_torch.py --seeds 10
"""

import argparse
import os
from itertools import combinations
from pathlib import Path
from statistics import mean, pstdev

import pandas as pd
import torch

REGIONS = 6


def read(folder: Path) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Rows (n, 39), and event and days (n, 2), by region and side."""
    table = pd.read_csv(folder / "brca.csv").merge(pd.read_csv(folder / "train_test_split.csv"), on="pid")
    return {
        str(side): (
            torch.tensor(part.iloc[:, 1:40].to_numpy("float32")),
            torch.tensor(part[["E", "T"]].to_numpy("float32")),
        )
        for side, part in table.groupby("fold2")
    }


def loss(risk: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Cox's negative partial log-likelihood over the batch's rows; ties by their order."""
    order = torch.argsort(-seen[:, 1], stable=True)
    risk, event = risk[order], seen[order, 0]
    return ((torch.logcumsumexp(risk, 0) - risk) * event).mean()


def concordance(risk: torch.Tensor, seen: torch.Tensor) -> float:
    """Share of the pairs whose order is known in which the earlier death has the higher risk; ties at half."""
    right, known = 0.0, 0
    for i, j in combinations(range(len(seen)), 2):
        first, last = (i, j) if (seen[i, 1], -seen[i, 0]) <= (seen[j, 1], -seen[j, 0]) else (j, i)
        same = bool(seen[i, 1] == seen[j, 1])
        if not seen[first, 0] or (same and seen[last, 0]):
            continue
        known += 1
        right += 0.5 if risk[first] == risk[last] else float(risk[first] > risk[last])
    return right / known


def trained(x: torch.Tensor, seen: torch.Tensor, seed: int) -> torch.nn.Linear:
    """The model of one seed."""
    torch.manual_seed(seed)
    model = torch.nn.Linear(39, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(30):
        for batch in torch.randperm(len(x)).split(8):
            optimizer.zero_grad()
            loss(model(x[batch])[:, 0], seen[batch]).backward()
            optimizer.step()
    return model


def main() -> None:
    """A line a seed, then mean and deviation."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = read(Path(os.environ["FEDCORE_DATA"]) / "fed_tcga_brca")
    scores = []
    for seed in range(asked.seeds):
        model = trained(*rows["train_0"], seed)
        with torch.no_grad():
            each = [
                concordance(model(x)[:, 0], seen)
                for x, seen in (rows[f"test_{region}"] for region in range(REGIONS))
            ]
        scores.append(mean(each))
        print(f"seed {seed}: {scores[-1]:.4f}", flush=True)
    print(f"{asked.seeds} seeds: {mean(scores):.4f} ± {pstdev(scores):.4f}, torch {torch.__version__}")


if __name__ == "__main__":
    main()
