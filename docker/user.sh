#!/usr/bin/env bash
# Prints the user, UID:GID, as whom a container writes files that are to be this user's.
set -euo pipefail

# A rootless engine's root is this user, and its other users are none of this machine's.
if [[ $(docker info --format '{{.SecurityOptions}}') == *rootless* ]]; then echo 0:0
else echo "$(id -u):$(id -g)"; fi
