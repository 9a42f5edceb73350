"""DVC stage: data/sites -> reports/checks.json, and a page for each site in reports/docs."""

import sys
from pathlib import Path

from fedcore.config import load_config
from fedcore.data.checks import check_sites
from fedcore.errors import FedcoreError


def main() -> None:
    """Read params.yaml, judge all sites in one process."""
    config = load_config("params.yaml")
    check_sites(Path("data/sites"), config.checks, Path("reports"))


if __name__ == "__main__":
    try:
        main()
    except FedcoreError as error:
        print(f"check: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
