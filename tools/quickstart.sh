#!/usr/bin/env bash
# From a fresh clone to a trained detector with pictures: sets up the environment, generates the
# embedded data set, trains a small detector on it, evaluates it, and draws its predictions.
#
#   bash tools/quickstart.sh [--stack NAME] [--light] [--seed N] [--work-dir DIR] [--resume]
#
#   --stack NAME    openmmlab (default), or onedl for its maintained forks; must come first
#   --light         train the light detector instead of the RetinaNet
#   --seed N        random seed of the training (default 0, from the config)
#   --work-dir DIR  folder for checkpoints, logs and pictures (default work_dirs/quickstart, and
#                   work_dirs/quickstart_light with --light)
#   --resume        continue from the last checkpoint there instead of starting over
#
# Needs Python 3.10, 3.11 or 3.12 and a C++ compiler. PYTHON=... selects another Python; an active
# virtual environment is used as it is.
set -euo pipefail

CALLED_FROM=$PWD
# shellcheck source=tools/setup.sh
. "$(dirname "$0")/setup.sh"

CONFIG=configs/retinanet_edgevit_xxs_shapes.py
WORK_DIR=''
LIGHT=''
TRAIN_OPTIONS=()
TIMES=''

read_options() {
  while [ $# -gt 0 ]; do
    case $1 in
      --seed=* | --work-dir=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" && continue ;;
      --seed | --work-dir) [ $# -ge 2 ] || usage "$1 needs a value" ;;
    esac
    case $1 in
      --seed)
        case $2 in '' | *[!0-9]*) usage "--seed $2 is not a whole number" ;; esac
        TRAIN_OPTIONS+=(--cfg-options "randomness.seed=$2") && shift
        ;;
      --work-dir)
        case $2 in /*) WORK_DIR=$2 ;; *) WORK_DIR=$CALLED_FROM/$2 ;; esac
        shift
        ;;
      --light) CONFIG=configs/light_edgevit_xxs_shapes.py LIGHT=_light ;;
      --resume) TRAIN_OPTIONS+=(--resume) ;;
      -h | --help) usage ;;
      *) usage "unknown option $1" ;;
    esac
    shift
  done
}

usage() { # [ERROR]
  if [ $# -gt 0 ]; then
    echo "quickstart: $1; see --help" >&2
    exit 2
  fi
  sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$ROOT/tools/quickstart.sh"
  exit 0
}

readable() { # SECONDS
  if [ "$1" -lt 60 ]; then echo "$1 s"; else echo "$(($1 / 60)) min $(($1 % 60)) s"; fi
}

timed() { # NAME COMMAND...: shows and logs the output, and measures the time
  local started=$SECONDS
  STEP=$1 LOG=$WORK_DIR/logs/$1.log
  shift
  printf '\n== %s\n' "$STEP"
  "$@" 2>&1 </dev/null | tee "$LOG" || explain $?
  TIMES="$TIMES$(printf '  %-11s %s' "$STEP" "$(readable $((SECONDS - started)))")"$'\n'
}

take_stack "$@"
read_options ${REST[@]+"${REST[@]}"}
WORK_DIR=${WORK_DIR:-$ROOT/work_dirs/quickstart$LIGHT}
started=$SECONDS
set_up
TIMES="$(printf '  %-11s %s' set-up "$(readable $((SECONDS - started)))")"$'\n'
mkdir -p "$WORK_DIR/logs"

timed data "$PY" tools/make_shapes.py data/shapes
timed train "$PY" tools/train.py "$CONFIG" --work-dir "$WORK_DIR" \
  ${TRAIN_OPTIONS[@]+"${TRAIN_OPTIONS[@]}"}
checkpoint=$(cat "$WORK_DIR/last_checkpoint") || fail 'it left no checkpoint' 'see the log'
timed evaluate "$PY" tools/test.py "$CONFIG" "$checkpoint" --work-dir "$WORK_DIR/test"
box_ap=$(grep -oE 'coco/bbox_mAP: +[0-9.-]+' "$LOG" | tail -n 1 | sed 's/.*: *//') ||
  fail 'it printed no box AP' 'see the log'
timed pictures "$PY" tools/predict.py "$CONFIG" "$checkpoint" data/shapes/images/val \
  --out "$WORK_DIR/pictures"

cat <<END

== quickstart: done in $(readable $((SECONDS - started)))
  box AP      $box_ap
$TIMES
  checkpoint  $checkpoint
  pictures    $WORK_DIR/pictures
  log         $WORK_DIR/logs/train.log
END
