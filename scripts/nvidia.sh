# shellcheck shell=bash
# What NVIDIA's driver on this machine and the Docker engine offer. Source it, with `pipefail`.

# A driver that no process keeps loaded takes seconds for each GPU.
SECONDS_FOR_DRIVER=20
SECONDS_FOR_ENGINE=5

driver_gpus() { # a line a GPU, as in "GPU 0: NVIDIA H200 (UUID: GPU-…)"; fails where there is none
  timeout "$SECONDS_FOR_DRIVER" nvidia-smi -L 2>/dev/null | grep '^GPU '
}

# By NVIDIA's runtime, or by a device of CDI. No `grep -q`, which stops reading: docker would fail.
engine_has_gpus() {
  timeout "$SECONDS_FOR_ENGINE" docker info --format '{{json .}}' 2>/dev/null |
    grep -E '"nvidia": *\{|"nvidia\.com/gpu' >/dev/null
}
