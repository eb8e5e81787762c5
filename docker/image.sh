#!/usr/bin/env bash
# Builds an image unless an image of the same content exists; prints its name.
# usage: docker/image.sh jobs|local|airflow      local: the jobs' image with the embedded S3 server
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/steps.sh
. scripts/steps.sh

target=$1
case $target in
  jobs | local)
    kind=jobs name=lung-jobs:$target wheels=build/wheelhouse
    content=(LICENSE docker/requirements/{jobs.lock,local.lock,torch.in} jobs) ;;
  airflow)
    kind=airflow name=lung-airflow:local wheels=build/wheelhouse-airflow
    content=(LICENSE docker/requirements/airflow{,-postgres}.lock docker/airflow_health.py dags) ;;
  *) echo "docker/image.sh: '$target' is not one of jobs, local, airflow" >&2; exit 2 ;;
esac
builder=${name%:*}:builder log=build/image-$target.log
lock build/image.lock "building an image"
TORCH=$(scripts/torch-build.sh)
export TORCH
base=$(docker/base-image.sh)
revision=$(git rev-parse --verify --quiet HEAD 2>/dev/null || echo unknown)
version=$(git describe --tags --always --dirty 2>/dev/null || echo untracked)
# Without a token in the remote's address: everybody can read an image's labels.
origin=$(git config --get remote.origin.url 2>/dev/null | sed -E 's#//[^/@]*@#//#' || true)

content_hash() {
  {
    [ $kind != jobs ] || echo "$TORCH"
    docker image inspect --format '{{.Id}}' "$base"
    find "docker/$kind.Dockerfile" "${content[@]}" -type f -not -path '*/__pycache__/*' -print0 \
      | LC_ALL=C sort -z | xargs -0 sha256sum
  } | sha256sum | cut -c 1-12
}

build() { # STAGE NAME
  tar --create --exclude=__pycache__ "docker/$kind.Dockerfile" "$wheels" "${content[@]}" |
    docker build --force-rm --network none --file docker/$kind.Dockerfile --target "$1" --tag "$2" \
      --build-arg BASE_IMAGE="$base" --build-arg VERSION="$version" --build-arg REVISION="$revision" \
      --build-arg SOURCE="${origin:-unknown}" --build-arg CONTENT="$hash" -
}

hash=$(content_hash)
has=$(docker image inspect --format '{{index .Config.Labels "lung.content"}}' "$name" 2>/dev/null || true)
if [ "$has" != "$hash" ]; then
  docker/wheelhouse.sh "$base" $kind >&2
  mapfile -t old < <(docker image inspect --format '{{.Id}}' "$name" "$builder" 2>/dev/null)
  trap 'docker/remove-nameless.sh "$log" "${old[@]}"' EXIT
  # Without buildx, as in some distributions' packages, only the classic builder works. It finds the
  # packages' layers again, and leaves no image without a name, where their stage has a name.
  docker buildx version >/dev/null 2>&1 || export DOCKER_BUILDKIT=0
  if [ "${DOCKER_BUILDKIT:-}" = 0 ]; then step "$log" "Building $builder on $base" build builder "$builder"; fi
  step "$log" "Building $name on $base" build "$target" "$name"
fi
if [ "$target" = jobs ]; then
  name=lung-jobs:$version
  docker tag lung-jobs:jobs "$name"
fi
echo "$name"
