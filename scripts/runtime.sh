#!/usr/bin/env bash
# Prints where jobs run on this machine: docker where an engine answers, process otherwise.
# RUNTIME=docker|process overrides it.
set -euo pipefail

SECONDS_FOR_ENGINE=5

die() { echo "$*" >&2; exit 2; }

engine_answers() {
  command -v docker >/dev/null && timeout "$SECONDS_FOR_ENGINE" docker version >/dev/null 2>&1
}

case "${RUNTIME:-}" in
  docker) engine_answers || die "no Docker engine answers: start one ('sudo make engine'), or RUNTIME=process" ;;
  process) ;;
  "") if engine_answers; then RUNTIME=docker; else RUNTIME=process; fi ;;
  *) die "RUNTIME=$RUNTIME is not one of docker, process" ;;
esac
echo "$RUNTIME"
