"""DVC stage for one site: data/raw -> data/sites/SITE. It starts fast, for there is one process a site."""

import sys
from pathlib import Path

from fedcore.config import load_config
from fedcore.data.partition import write_site
from fedcore.errors import BadInput, FedcoreError


def main() -> None:
    """Read params.yaml, write the folder of the site named on the command line."""
    if len(sys.argv) != 2:
        raise BadInput("name one site, for example: python pipelines/partition.py UA")
    config = load_config("params.yaml")
    write_site(Path("data/raw"), sys.argv[1], Path("data/sites"), config.data, config.seed)


if __name__ == "__main__":
    try:
        main()
    except FedcoreError as error:
        print(f"partition: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
