"""DVC stage: audit a private training of digits -> reports/audit: JSON, page, picture; fails if the audit does."""

import sys
from pathlib import Path

from fedcore.config import load_config
from fedcore.errors import FedcoreError
from fedcore.redteam.audit import run_audit
from fedcore.redteam.course import UNWATCHED, Asked
from fedcore.redteam.verdict import write


def main(canaries: str, rounds: str, seed: str) -> None:
    """Train with that many canaries in runs/audit, write what was found, and fail on a bound that is exceeded."""
    config = load_config("params.yaml", preset="digits-private", overrides=[f"run.rounds={rounds}"])
    asked = Asked(int(canaries), seed=int(seed), confidence=UNWATCHED)
    verdict = run_audit(config, Path("runs/audit"), asked)
    print(*write(verdict, Path("reports/audit")).values(), sep="\n")
    verdict.require()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:4])
    except FedcoreError as error:
        print(f"audit: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
