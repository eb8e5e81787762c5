#!/usr/bin/env bash
# Prints the build of PyTorch for this machine: cuda where the driver here or the Docker engine offers
# an NVIDIA GPU, cpu otherwise. TORCH=cuda|cpu overrides it, as for an image that runs elsewhere.
set -euo pipefail

SECONDS_FOR_DRIVER=20
SECONDS_FOR_ENGINE=5

# No `grep -q`: it stops reading, and the program before it would fail by SIGPIPE.
driver_has_gpu() {
  command -v nvidia-smi >/dev/null &&
    timeout "$SECONDS_FOR_DRIVER" nvidia-smi -L 2>/dev/null | grep '^GPU ' >/dev/null
}

engine_has_gpu() { # by NVIDIA's runtime, or by a device of CDI
  command -v docker >/dev/null &&
    timeout "$SECONDS_FOR_ENGINE" docker info --format '{{json .}}' 2>/dev/null |
    grep -E '"nvidia": *\{|"nvidia\.com/gpu' >/dev/null
}

case "${TORCH:-}" in
  cpu | cuda) ;;
  "") if driver_has_gpu || engine_has_gpu; then TORCH=cuda; else TORCH=cpu; fi ;;
  *) echo "TORCH=$TORCH is not one of cpu, cuda" >&2; exit 2 ;;
esac
echo "$TORCH"
