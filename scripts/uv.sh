#!/usr/bin/env bash
# Prints the path of uv, in the version of docker/requirements/uv.lock: the one on PATH, or one that
# pip installs into build/uv. Fails where there is neither, as without a network.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/steps.sh
. scripts/steps.sh

LOCK=docker/requirements/uv.lock
LOG=build/uv.log
wanted=$(sed -nE 's/^uv==([^ ]+).*/\1/p' "$LOCK")

is_wanted() { [[ "$("$1" --version 2>/dev/null)" == "uv $wanted"* ]]; }

if on_path=$(command -v uv) && is_wanted "$on_path"; then echo "$on_path"; exit; fi
uv=$PWD/build/uv/bin/uv
lock build/uv.lock "installing uv"
if ! is_wanted "$uv"; then
  # One retry: without a network the caller goes on without uv.
  { "${PYTHON:-python3}" -m venv --clear build/uv &&
    build/uv/bin/pip install --retries 1 --require-hashes --requirement "$LOCK" &&
    is_wanted "$uv"; } >"$LOG" 2>&1 || {
    grep -E '^ERROR' "$LOG" | tail -n 1 >&2
    exit 1
  }
fi
echo "$uv"
