#!/usr/bin/env bash
# Builds an image unless an image of the same content exists; prints its name.
# usage: docker/image.sh jobs|local|airflow      local: the jobs' image with the embedded S3 server
set -euo pipefail
cd "$(dirname "$0")/.."

LOG=build/image.log

target=$1
case $target in
  jobs | local)
    kind=jobs name=lung-jobs:$target
    content=(LICENSE docker/requirements/{jobs.lock,local.lock,torch.in} jobs) ;;
  airflow)
    kind=airflow name=lung-airflow:local
    content=(LICENSE docker/requirements/airflow{,-postgres}.lock docker/airflow_health.py dags) ;;
  *) echo "docker/image.sh: '$target' is not one of jobs, local, airflow" >&2; exit 2 ;;
esac
# Of two commands at once the second waits for the first and finds the image built.
mkdir -p build
exec 9>build/image.lock
flock 9
base=$(docker/base-image.sh)
revision=$(git rev-parse --verify --quiet HEAD 2>/dev/null || echo unknown)
version=$(git describe --tags --always --dirty 2>/dev/null || echo untracked)
# Without a token in the remote's address: everybody can read an image's labels.
origin=$(git config --get remote.origin.url 2>/dev/null | sed -E 's#//[^/@]*@#//#' || true)

content_hash() {
  {
    [ $kind != jobs ] || echo "${TORCH:-cpu}"
    docker image inspect --format '{{.Id}}' "$base"
    find "docker/$kind.Dockerfile" "${content[@]}" -type f -not -path '*/__pycache__/*' -print0 \
      | LC_ALL=C sort -z | xargs -0 sha256sum
  } | sha256sum | cut -c 1-12
}

hash=$(content_hash)
label='{{.Id}} {{index .Config.Labels "lung.content"}}'
read -r old has < <(docker image inspect --format "$label" "$name" 2>/dev/null) || true
if [ "${has:-}" != "$hash" ]; then
  docker/wheelhouse.sh "$base" $kind >&2
  echo "building $name on $base" >&2
  # Without buildx, as in some distributions' packages, only the classic builder works.
  docker buildx version >/dev/null 2>&1 || export DOCKER_BUILDKIT=0
  docker build --network none --file docker/$kind.Dockerfile --target "$target" \
    --build-arg BASE_IMAGE="$base" --build-arg VERSION="$version" --build-arg REVISION="$revision" \
    --build-arg SOURCE="${origin:-unknown}" --build-arg CONTENT="$hash" --tag "$name" . \
    >"$LOG" 2>&1 || { tail -n 30 "$LOG" >&2; exit 1; }
  # Removes the previous image if it has no other name and no container uses it.
  if [ "$(docker image inspect --format '{{len .RepoTags}}' "${old:-none}" 2>/dev/null)" = 0 ]; then
    docker image rm "$old" >/dev/null 2>&1 || true
  fi
fi
if [ "$target" = jobs ]; then
  name=lung-jobs:$version
  docker tag lung-jobs:jobs "$name"
fi
echo "$name"
