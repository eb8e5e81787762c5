#!/usr/bin/env bash
# Prints how many NVIDIA GPUs a container of the image gets from this engine; 0 where it gets none.
# usage: docker/gpus.sh IMAGE
set -euo pipefail

SECONDS_TO_ANSWER=60

list_gpus() { # COMMAND...: as in "GPU 0: NVIDIA H200 (UUID: GPU-…)", then its parts, if any
  timeout "$SECONDS_TO_ANSWER" "$@" nvidia-smi -L 2>/dev/null || true
}

build=$("$(dirname "$0")/../scripts/torch-build.sh")
if [ "$build" = cpu ]; then echo 0; exit; fi
count=$(list_gpus docker run --rm --gpus all --network none "$1" | grep -c '^GPU ' || true)
if [ "$count" = 0 ] && [[ "$(list_gpus env)" == *"GPU 0"* ]]; then
  echo "This machine has a GPU, but its Docker engine offers none: install NVIDIA's container toolkit" >&2
fi
echo "$count"
