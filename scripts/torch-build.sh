#!/usr/bin/env bash
# Prints the build of PyTorch for this machine: cuda where the driver here or the Docker engine offers
# an NVIDIA GPU, cpu otherwise. TORCH=cuda|cpu overrides it, as for an image that runs elsewhere.
set -euo pipefail
# shellcheck source=scripts/nvidia.sh
. "$(dirname "$0")/nvidia.sh"

case "${TORCH:-}" in
  cpu | cuda) ;;
  "") if driver_gpus >/dev/null || engine_has_gpus; then TORCH=cuda; else TORCH=cpu; fi ;;
  *) echo "TORCH=$TORCH is not one of cpu, cuda" >&2; exit 2 ;;
esac
echo "$TORCH"
