"""DVC stage: checked sites -> models/federated, reports/metrics.json and rounds.csv, pictures."""

import sys
from pathlib import Path

from fedcore.config import load_config
from fedcore.coordinator import experiment_name, records, simulate
from fedcore.errors import FedcoreError
from fedcore.report import publish
from fedcore.types import RoundRecord


def say(record: RoundRecord) -> None:
    """One line a round."""
    print(
        f"round {record.round}: {' '.join(f'{k} {v:.4f}' for k, v in sorted(record.metrics.items()))}",
        flush=True,
    )


def main() -> None:
    """Read params.yaml, train; equal parameters and data go on where an interrupted stage was."""
    config = load_config("params.yaml")
    checks = Path("reports/checks.json")
    run = experiment_name(config, checks)
    result = simulate(config, Path("runs"), run, Path("data/sites"), checks, progress=say)
    publish(result.model_dir, records(Path("runs"), run), Path("models/federated"), Path("reports"))
    print(f"MLflow run: {result.tracking_url}")


if __name__ == "__main__":
    try:
        main()
    except FedcoreError as error:
        print(f"train: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
