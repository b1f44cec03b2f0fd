#!/usr/bin/env bash
# Sets up the environment and runs every check:
#   bash tools/test.sh [--stack openmmlab|onedl] [options of pytest]
#
#   --runtimes   instead, sets up ExecuTorch and the converters to LiteRT and Core ML in environments
#                of their own and runs their tests there
set -euo pipefail

# shellcheck source=tools/setup.sh
. "$(dirname "$0")/setup.sh"
take_stack "$@"
set_up

if [ "${REST[0]-}" = --runtimes ]; then
  failed=''
  for name in litert executorch coreml; do
    set_up_converter "$name"
    printf '\n== pytest: %s\n' "$name"
    "$ROOT/.venv-$name/bin/python" -m pytest -m runtimes "tests/export/test_$name.py" "${REST[@]:1}" ||
      failed="$failed${failed:+, }$name"
  done
  [ -z "$failed" ] || { echo "FAILED: $failed" >&2 && exit 1; }
  exit 0
fi

# The tests compare with timm, which needs torchvision. PyPI's does not load with a CPU build of torch
# and would break mmdet, so both go into a separate folder, which lightvit_mm/timm_import.py knows.
TIMM='timm==1.0.31 torchvision==0.28.0'
if [ "$(cat "$ENV/timm/installed" 2>/dev/null)" != "$TIMM" ]; then
  rm -rf "$ENV/timm"
  # shellcheck disable=SC2086
  step 'installing timm for the tests' timm pip_install --no-deps --target "$ENV/timm" $TIMM
  echo "$TIMM" >"$ENV/timm/installed"
fi

failed=''
check() { # NAME COMMAND...: records a failure and goes on, so that one call shows everything
  local name=$1
  shift
  printf '\n== %s\n' "$name"
  "$PY" -m "$@" || failed="$failed${failed:+, }$name"
}

check 'ruff check' ruff check .
check 'ruff format' ruff format --check .
check 'mypy' mypy lightvit_mm
# Parallel tests with one thread each: a second thread does not make a test twice as fast.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
check 'pytest' pytest -n auto --maxprocesses 4 --dist worksteal ${REST[@]+"${REST[@]}"}

if [ -n "$failed" ]; then
  echo "FAILED: $failed" >&2
  exit 1
fi
