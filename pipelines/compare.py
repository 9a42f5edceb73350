"""DVC stage: the federated model beside the pooled one and each site's own -> reports/compare.*."""

import sys
from pathlib import Path

from fedcore.adapters.trained import TrainedModel
from fedcore.config import load_config
from fedcore.errors import FedcoreError
from fedcore.experiments import compare_models, fit_baselines, passing_sites, write_comparison


def main() -> None:
    """Read params.yaml, train the baselines, write table and picture."""
    config = load_config("params.yaml")
    trained = TrainedModel.load(Path("models/federated"))
    clients = passing_sites(Path("reports/checks.json"), config)
    baselines = fit_baselines(trained, Path("data/sites"), clients, config, print)
    write_comparison(compare_models(trained, baselines, Path("data/sites"), config), Path("reports"))


if __name__ == "__main__":
    try:
        main()
    except FedcoreError as error:
        print(f"compare: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
