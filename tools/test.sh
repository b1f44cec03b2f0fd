#!/usr/bin/env bash
# Sets up the environment and runs every check: bash tools/test.sh [options of pytest]
set -euo pipefail

# shellcheck source=tools/setup.sh
. "$(dirname "$0")/setup.sh"
set_up

failed=''
check() { # NAME COMMAND...: runs all of them, so that one call shows everything that is wrong
  local name=$1
  shift
  printf '\n== %s\n' "$name"
  "$PY" -m "$@" || failed="$failed${failed:+, }$name"
}

check 'ruff check' ruff check .
check 'ruff format' ruff format --check .
check 'mypy' mypy lightvit_mm
check 'pytest' pytest "$@"

if [ -n "$failed" ]; then
  echo "FAILED: $failed" >&2
  exit 1
fi
