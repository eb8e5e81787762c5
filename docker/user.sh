#!/usr/bin/env bash
# Prints UID:GID, the user option of a container whose files shall belong to the current user.
set -euo pipefail

# In a rootless engine, root is the current user, and other ids map to no user of this machine.
if [[ $(docker info --format '{{.SecurityOptions}}') == *rootless* ]]; then echo 0:0
else echo "$(id -u):$(id -g)"; fi
