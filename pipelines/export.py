"""DVC stage: models/federated -> models/edge (ONNX), compared with the model on held-out rows."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from fedcore.adapters.trained import TrainedModel
from fedcore.config import load_config
from fedcore.edge.export import export
from fedcore.edge.holdout import held_out
from fedcore.errors import FedcoreError


def main() -> None:
    """Read params.yaml, export within the limits of its edge section."""
    config = load_config("params.yaml")
    trained = TrainedModel.load(Path("models/federated"))
    rows = held_out(Path("data/sites"), trained.schema, config.seed, config.data.test_fraction)
    report = export(trained, Path("models/edge"), rows, config.edge, name=config.promotion.model)
    facts = {k: v for k, v in asdict(report).items() if k not in ("folder", "latency_ms")}
    Path("reports/export.json").write_text(
        json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    try:
        main()
    except FedcoreError as error:
        print(f"export: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
