#!/usr/bin/env bash
# Removes images, as builds replace them, that no name, container or other image uses any more.
# usage: docker/remove-nameless.sh ID...
set -euo pipefail

for id in "$@"; do
  if [ "$(docker image inspect --format '{{len .RepoTags}}' "$id" 2>/dev/null)" = 0 ]; then
    docker image rm "$id" >/dev/null 2>&1 || true
  fi
done
