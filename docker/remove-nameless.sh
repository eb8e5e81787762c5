#!/usr/bin/env bash
# Removes images, as builds replace them, that no name, container or other image uses any more, and the
# last layer of a build that failed, of which its log has the id.
# usage: docker/remove-nameless.sh LOG ID...
set -euo pipefail

layer=$(sed -nE 's/^ ---> ([0-9a-f]{12})$/\1/p' "$1" | tail -n 1)
shift
for id in $layer "$@"; do
  if [ "$(docker image inspect --format '{{len .RepoTags}}' "$id" 2>/dev/null)" = 0 ]; then
    docker image rm "$id" >/dev/null 2>&1 || true
  fi
done
