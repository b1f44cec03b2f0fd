#!/usr/bin/env bash
# Under Slurm: bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options of tools/train.py]
# Variables and their defaults: GPUS (8), GPUS_PER_NODE (8, or GPUS if fewer), CPUS_PER_TASK (5), SRUN_ARGS (none).
set -euo pipefail
usage() { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
refuse() { echo "error: $1" >&2; usage; }
[ $# -ge 4 ] || usage
partition=$1 job=$2 config=$3 work_dir=$4
shift 4
gpus=${GPUS:-8}
per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
[ "$((gpus % per_node))" = 0 ] || refuse "GPUS=$gpus is not a multiple of GPUS_PER_NODE=$per_node"
[ -f "$config" ] || [ -f "$(dirname "$0")/../configs/${config%.py}.py" ] || refuse "there is no config $config"
command -v srun > /dev/null || refuse 'srun is not on PATH: this is not a login node of a Slurm cluster. On one machine, use tools/dist_train.sh'
# Two jobs on one node need different ports.
export MASTER_PORT=${MASTER_PORT:-$((20000 + RANDOM % 20000))}
# shellcheck disable=SC2086  # SRUN_ARGS may hold several words
exec srun --partition="$partition" --job-name="$job" --gres="gpu:$per_node" \
    --ntasks="$gpus" --ntasks-per-node="$per_node" --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    python -u "$(dirname "$0")/train.py" "$config" --work-dir "$work_dir" --launcher slurm "$@"
