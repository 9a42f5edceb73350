#!/usr/bin/env bash
# requirements.lock from pyproject.toml: versions only, no addresses, no local build of torch.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=$(command -v uv || echo .venv/bin/uv)
[ -n "${PIP_FIND_LINKS:-}" ] && export UV_FIND_LINKS="${UV_FIND_LINKS:-$PIP_FIND_LINKS}"
"$uv" pip compile --quiet pyproject.toml --extra dev --python-version 3.11 --upgrade --override requirements.overrides \
  --no-header --no-annotate --no-emit-find-links --no-emit-index-url --output-file requirements.lock.part
{
  echo "# Written by scripts/lock.sh (uv pip compile) from pyproject.toml, with requirements.overrides: versions only."
  sed -E 's/^(torch==[0-9.]+)\+[a-z0-9]+$/\1/' requirements.lock.part
} > requirements.lock
rm requirements.lock.part
