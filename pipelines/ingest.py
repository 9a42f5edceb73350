"""DVC stage: the data set that params.yaml names -> data/raw, and its schema for the sites."""

import sys
from pathlib import Path

from fedcore.config import load_config
from fedcore.data.catalog import ingest
from fedcore.data.partition import share_schema
from fedcore.errors import FedcoreError


def main() -> None:
    """Read params.yaml, lay the raw data down."""
    config = load_config("params.yaml")
    schema = ingest(config.data, Path("data/raw"), config.seed)
    share_schema(schema, Path("data/sites"))


if __name__ == "__main__":
    try:
        main()
    except FedcoreError as error:
        print(f"ingest: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
