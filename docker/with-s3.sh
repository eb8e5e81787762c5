#!/usr/bin/env bash
# Runs a command beside an S3 server in a container, on a network of its own that containers of
# jobs can join. The command finds AWS_* and LUNG_DOCKER_NETWORK set; the S3 server answers at one
# address to containers and to this machine. Nothing is left behind.
# usage: docker/with-s3.sh COMMAND...
set -euo pipefail

name=lung-s3-$$-$RANDOM
image=${LUNG_JOBS_IMAGE:-lung-jobs:local}

clean_up() {
  docker rm --force --volumes "$name" >/dev/null 2>&1 || true
  docker network rm "$name" >/dev/null 2>&1 || echo "the network $name is left" >&2
}
docker network create "$name" >/dev/null
trap clean_up EXIT

docker run --detach --init --read-only --volume /tmp --name "$name" --network "$name" "$image" \
  python -m jobs s3 --host 0.0.0.0 --folder /tmp/s3 >/dev/null

address() { docker logs "$name" 2>/dev/null | sed -n 's/^export AWS_ENDPOINT_URL=//p'; }
for _ in {1..120}; do
  [ -z "$(address)" ] || break
  sleep 0.5
done
AWS_ENDPOINT_URL=$(address)
[ -n "$AWS_ENDPOINT_URL" ] || { docker logs "$name" >&2; exit 69; }

# The keys go to the command's environment and to no command line.
while IFS='=' read -r key value; do export "$key=$value"; done < <(docker exec "$name" python -c \
  'import json; [print(f"{k}={v}") for k, v in json.load(open("/tmp/s3/credentials.json")).items()]')
export AWS_ENDPOINT_URL LUNG_DOCKER_NETWORK=$name

"$@"
