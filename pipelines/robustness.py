"""DVC stage: rules under attack on the digits preset -> reports/robustness: table, JSON, heat map."""

import sys
from pathlib import Path

from fedcore.config import load_config
from fedcore.errors import FedcoreError
from fedcore.redteam.kept import fill
from fedcore.redteam.matrix import Asked
from fedcore.redteam.write import write


def main(rules: str, attacks: str, settings: str, seeds: str) -> None:
    """Train each cell that is not kept in runs/robustness, write what all show; names apart by commas."""
    config = load_config("params.yaml", preset="digits")
    sides = [tuple(names.split(",")) for names in (rules, attacks, settings)]
    asked = Asked(config, rules=sides[0], attacks=sides[1], settings=sides[2], seeds=int(seeds))
    records = fill(asked, Path("runs/robustness"))
    print(*write(records, Path("reports/robustness"), asked.title).values(), sep="\n")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:5])
    except FedcoreError as error:
        print(f"robustness: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
