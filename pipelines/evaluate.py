"""DVC stage: models/federated on every site's held-out rows -> reports/evaluation.json and sites.csv."""

import sys
from pathlib import Path

from fedcore.adapters.trained import TrainedModel
from fedcore.config import load_config
from fedcore.errors import FedcoreError
from fedcore.experiments import evaluate, passing_sites, write_evaluation


def main() -> None:
    """Read params.yaml, judge the model."""
    config = load_config("params.yaml")
    trained = TrainedModel.load(Path("models/federated"))
    clients = passing_sites(Path("reports/checks.json"), config)
    write_evaluation(evaluate(trained, Path("data/sites"), clients, config), Path("reports"))


if __name__ == "__main__":
    try:
        main()
    except FedcoreError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
