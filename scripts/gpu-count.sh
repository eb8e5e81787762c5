#!/usr/bin/env bash
# Prints LUNG_GPUS as a number: itself or, for all, how many NVIDIA GPUs the jobs get.
# usage: scripts/gpu-count.sh docker|process SETTING
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/nvidia.sh
. scripts/nvidia.sh

IMAGE=${LUNG_JOBS_IMAGE:-lung-jobs:local}
SECONDS_TO_ANSWER=60

container_gpus() { # the toolkit adds nvidia-smi; the engine may be on another machine
  timeout "$SECONDS_TO_ANSWER" docker run --rm --gpus all --network none "$IMAGE" nvidia-smi -L |
    grep '^GPU '
}

case $2 in
  all | "") ;;
  *[!0-9]*) echo "LUNG_GPUS is '$2': give a number of GPUs, or all" >&2; exit 2 ;;
  *) echo "$((10#$2))"; exit ;;
esac
build=$(scripts/torch-build.sh)
if [ "$build" = cpu ]; then echo 0; exit; fi
case $1 in
  process) count=$(driver_gpus | wc -l) || true ;;
  docker)
    errors=$(mktemp)
    trap 'rm -f "$errors"' EXIT
    count=$(container_gpus 2>"$errors" | wc -l) || true
    if [ "$count" = 0 ]; then
      echo "No GPU for the jobs, which compute on the CPU; see docs/gpu-node.md. $(head -n 1 "$errors")" >&2
    fi ;;
  *) echo "scripts/gpu-count.sh: '$1' is not one of docker, process" >&2; exit 2 ;;
esac
echo "$count"
