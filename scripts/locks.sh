#!/usr/bin/env bash
# Compiles docker/requirements/*.in into lock files with hashes, from PyPI only. Each lock holds for
# Python 3.11 and newer and for every platform. Delete a lock first to take the newest versions.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=$(scripts/uv.sh)
cd docker/requirements

compile() { # NAME OPTION...; an unchanged lock keeps its date, so that no environment is set up again
  local lock=$1.lock
  shift
  [ ! -e "$lock" ] || cp "$lock" "$lock.new"
  # The system's certificates: a company's proxy signs with its own authority.
  "$uv" pip compile --quiet --no-config --system-certs \
    --default-index https://pypi.org/simple --universal --fork-strategy fewest \
    --python-version 3.11 --generate-hashes --custom-compile-command "make locks" \
    --output-file "$lock.new" "$@"
  if cmp --silent "$lock" "$lock.new"; then rm "$lock.new"; else mv "$lock.new" "$lock"; fi
}

# torch is resolved with the jobs, for the packages that it needs, but not written to the lock.
compile jobs jobs.in torch.in --excludes torch-cuda.excludes --no-emit-package torch
compile local local.in --constraint jobs.lock
compile dev dev.in --constraint jobs.lock --constraint local.lock
compile uv uv.in
compile airflow airflow.in
compile airflow-postgres airflow-postgres.in --constraint airflow.lock
compile airflow-dev airflow-dev.in --constraint airflow.lock
# Without torchvision: PyPI has no build for the CPU's torch, and the peers' code in use does not
# import it.
compile bench-peers bench-peers.in torch.in --excludes torch-cuda.excludes \
  --excludes bench-peers.excludes --no-emit-package torch
