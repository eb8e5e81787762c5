#!/usr/bin/env bash
# Compiles docker/requirements/*.in into lock files with hashes, from PyPI alone: one lock for
# every Python from 3.11 on and every platform. Delete a lock first to take the newest of everything.
set -euo pipefail
cd "$(dirname "$0")/../docker/requirements"

compile() { # NAME OPTION...; a lock that stays as it was keeps its date, and so its environments
  local lock=$1.lock
  shift
  [ ! -e "$lock" ] || cp "$lock" "$lock.new"
  # The system's certificates, because a company's proxy signs with its own.
  ../../.venv-uv/bin/uv pip compile --quiet --no-config --system-certs \
    --default-index https://pypi.org/simple --universal --fork-strategy fewest \
    --python-version 3.11 --generate-hashes --custom-compile-command "make locks" \
    --output-file "$lock.new" "$@"
  if cmp --silent "$lock" "$lock.new"; then rm "$lock.new"; else mv "$lock.new" "$lock"; fi
}

# torch is compiled in, for the packages that it needs, and left out of the lock itself.
compile jobs jobs.in torch.in --excludes torch-cuda.excludes --no-emit-package torch
compile local local.in --constraint jobs.lock
compile dev dev.in --constraint jobs.lock --constraint local.lock
compile airflow airflow.in
compile airflow-postgres airflow-postgres.in --constraint airflow.lock
compile airflow-dev airflow-dev.in --constraint airflow.lock
# torchvision has no build for the CPU's torch, and none of what is used of the peers wants it.
compile bench-peers bench-peers.in torch.in --excludes torch-cuda.excludes \
  --excludes bench-peers.excludes --no-emit-package torch
