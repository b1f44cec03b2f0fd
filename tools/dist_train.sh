#!/usr/bin/env bash
# Several processes on this machine: bash tools/dist_train.sh CONFIG NUM_PROCESSES [options of tools/train.py]
# On several machines set NNODES, NODE_RANK and MASTER_ADDR (and PORT, default 29500).
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
config=$1 processes=$2
shift 2
exec python -m torch.distributed.run --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    --nproc_per_node="$processes" \
    "$(dirname "$0")/train.py" "$config" --launcher pytorch "$@"
