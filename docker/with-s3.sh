#!/usr/bin/env bash
# Runs a command beside an S3 server in a container, on a new network that containers of jobs can
# join. The command gets AWS_* and LUNG_DOCKER_NETWORK; the server's address is the same for
# containers and for this machine. Afterwards the container and the network are removed.
# usage: docker/with-s3.sh [--folder FOLDER] COMMAND...     FOLDER keeps the objects
set -euo pipefail

SECONDS_TO_STOP=5

name=lung-s3-$$-$RANDOM
image=${LUNG_JOBS_IMAGE:-lung-jobs:local}
store=(--volume /tmp)
inside=/tmp/s3
if [ "${1:-}" = --folder ]; then
  inside=/s3
  user=$("$(dirname "$0")/user.sh")
  store=(--tmpfs /tmp --user "$user"
    --mount "type=bind,\"source=$(realpath "$2")\",target=$inside")
  shift 2
fi
errors=$(mktemp)

clean_up() {
  trap '' INT TERM
  # A job's container on the network would prevent its removal.
  docker ps --all --quiet --filter "network=$name" --filter label=lung.dag \
    | xargs -r docker rm --force --volumes >/dev/null 2>&1 || true
  [ -z "${server:-}" ] || eval "exec ${server[1]}>&-"
  timeout "$SECONDS_TO_STOP" docker wait "$name" >/dev/null 2>&1 || true
  docker rm --force --volumes "$name" >/dev/null 2>&1 || true
  docker network rm "$name" >/dev/null 2>&1 || echo "the network $name could not be removed" >&2
  rm -f "$errors"
}
docker network create "$name" >/dev/null
trap clean_up EXIT

# The server ends when its standard input closes, also where this script is killed. It prints its keys
# to standard output, which the engine does not log; they go to the command's environment only.
coproc server {
  trap '' INT TERM
  exec docker run --rm --interactive --sig-proxy=false --init --read-only "${store[@]}" \
    --log-driver none --name "$name" --network "$name" "$image" \
    python -m jobs s3 --host 0.0.0.0 --folder "$inside" -- \
    sh -c 'env | grep "^AWS_"; echo; exec cat' 2>"$errors"
}
while IFS='=' read -r key value && [ -n "$key" ]; do export "$key=$value"; done <&"${server[0]}"
[ -n "${AWS_ENDPOINT_URL:-}" ] || { cat "$errors" >&2; exit 69; }
export LUNG_DOCKER_NETWORK=$name

"$@"
