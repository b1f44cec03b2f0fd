#!/usr/bin/env bash
# Sets up the environment and runs every check: bash tools/test.sh [options of pytest]
set -euo pipefail

# shellcheck source=tools/setup.sh
. "$(dirname "$0")/setup.sh"
set_up

# The tests compare with timm, which needs a torchvision. PyPI's does not load beside a CPU torch and
# then breaks mmdet, so both go into a folder of their own, which lightvit_mm/benchmark/forms.py knows.
TIMM='timm==1.0.31 torchvision==0.28.0'
if [ "$(cat "$ENV/timm/installed" 2>/dev/null)" != "$TIMM" ]; then
  rm -rf "$ENV/timm"
  # shellcheck disable=SC2086
  step 'installing timm for the tests' timm pip_install --no-deps --target "$ENV/timm" $TIMM
  echo "$TIMM" >"$ENV/timm/installed"
fi

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
# Side by side, one thread each: two threads for one test are not twice as fast as one.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
check 'pytest' pytest -n auto --maxprocesses 4 --dist worksteal "$@"

if [ -n "$failed" ]; then
  echo "FAILED: $failed" >&2
  exit 1
fi
