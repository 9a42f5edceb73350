#!/usr/bin/env bash
# The adapters' laws with TensorFlow too, which takes 1.4 GB: in an environment of its own beside .venv.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=$(command -v uv || echo .venv/bin/uv)
env=.venv-frameworks
if [ ! -f "$env/ready" ] || [ pyproject.toml -nt "$env/ready" ]; then
  "$uv" venv --quiet --clear --python .venv/bin/python "$env"
  VIRTUAL_ENV=$PWD/$env "$uv" pip install --quiet -e '.[tensorflow,mlx]' scikit-learn \
    pytest pytest-randomly pytest-timeout hypothesis
  touch "$env/ready"
fi
"$env/bin/python" -m pytest -q -p no:cacheprovider tests/laws/test_adapters.py tests/laws/test_own_models.py
