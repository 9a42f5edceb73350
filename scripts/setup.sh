#!/usr/bin/env bash
# One environment in .venv, exactly as requirements.lock says. Safe to interrupt: the stamp is written last,
# so an unfinished installation is done again and a finished one is not.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "setup: $1" >&2; exit 1; }

stamp=.venv/.fedcore-stamp
wanted="$(cat requirements.lock pyproject.toml scripts/setup.sh | sha256sum | cut -d' ' -f1) ${TORCH:-cpu}"
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && exit 0

command -v git >/dev/null || fail "git is not installed; install it with your system's package manager"

find_python() {
  local name
  for name in "${PYTHON:-}" python3.11 python3 python; do
    [ -n "$name" ] && command -v "$name" >/dev/null || continue
    "$name" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && { echo "$name"; return; }
  done
  return 1
}

if ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
  python=$(find_python) || fail "Python 3.11 is not installed; install it, or name it: make setup PYTHON=/path/to/python3.11"
  rm -rf .venv
  "$python" -m venv .venv || fail "$python cannot make a virtual environment; install its venv module (Debian: python3.11-venv)"
fi
rm -f "$stamp"

if command -v uv >/dev/null; then uv=uv; else
  .venv/bin/python -m pip --version >/dev/null 2>&1 || fail "neither uv nor pip is there; install one of them"
  [ -x .venv/bin/uv ] || .venv/bin/python -m pip install --quiet uv || fail "uv cannot be installed; is a package index reachable?"
  uv=.venv/bin/uv
fi

# torch: a local wheel where pip has one; else the build for this machine, without gigabytes of GPU packages
# unless they are asked for (TORCH=cuda, or TORCH=auto to look for a GPU).
if [ -n "${PIP_FIND_LINKS:-}" ]; then
  export UV_FIND_LINKS="${UV_FIND_LINKS:-$PIP_FIND_LINKS}"
else
  case "${TORCH:-cpu}" in
    cuda|auto) export UV_TORCH_BACKEND=auto ;;
    cpu) export UV_TORCH_BACKEND=cpu ;;
    *) fail "TORCH must be cpu, cuda or auto, got ${TORCH}" ;;
  esac
fi

echo "setup: installing $(grep -c == requirements.lock) packages into .venv"
"$uv" pip install --quiet --python .venv/bin/python --override requirements.overrides -r requirements.lock \
  || fail "the packages of requirements.lock could not be installed (see above); mend that and run make setup again"
"$uv" pip install --quiet --python .venv/bin/python --no-deps --editable . \
  || fail "fedcore itself could not be installed (see above)"
# uv leaves compiling to the first start of each process, and where PYTHONDONTWRITEBYTECODE is set to every one: seconds each.
# Some packages bring templates that are no Python; that those do not compile is no failure.
echo "setup: compiling the packages once, so that every start after this is quicker"
.venv/bin/python -m compileall -q -j 0 -x '/(tests?|testing|ray|pip|libcst|networkx|fontTools)/' .venv/lib/python3.11/site-packages \
  >/dev/null 2>&1 || true
echo "$wanted" > "$stamp"
echo "setup: done"
