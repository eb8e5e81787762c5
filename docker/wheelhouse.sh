#!/usr/bin/env bash
# Downloads the wheels of an image into build/, so that `docker build` needs no network.
# usage: docker/wheelhouse.sh BASE_IMAGE jobs|airflow
# The wheels are for the base image's Python and C library, which differ from this machine's.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/steps.sh
. scripts/steps.sh

BASE_IMAGE=$1
PYTHON=${PYTHON:-python3}
LOCKED=docker/requirements
case $2 in
  jobs)
    LOCKS=("$LOCKED"/{jobs,local}.lock)
    TORCH_PIN=("$LOCKED/torch.in")
    HOUSE=build/wheelhouse ;;
  airflow)
    LOCKS=("$LOCKED"/{airflow,airflow-postgres}.lock)
    TORCH_PIN=()
    HOUSE=build/wheelhouse-airflow ;;
  *) echo "docker/wheelhouse.sh: '$2' is not one of jobs, airflow" >&2; exit 2 ;;
esac

platform_of_base_image() { # prints: Python version, minor version of glibc, machine
  docker run --rm --network none "$BASE_IMAGE" python3 -c '
import platform, sys
print("%d.%d" % sys.version_info[:2], platform.libc_ver()[1].split(".")[1], platform.machine())'
}

platform=$(platform_of_base_image)
read -r python_version glibc machine <<<"$platform"
target=(--only-binary=:all: --python-version "$python_version" --implementation cp)
# pip does not infer older platforms from one: every manylinux that the image runs is listed.
for minor in $(seq "$glibc" -1 5); do target+=(--platform "manylinux_2_${minor}_$machine"); done
target+=(--platform "manylinux2014_$machine" --platform "linux_$machine")

build=$(scripts/torch-build.sh)
key=$(cat "${LOCKS[@]}" "${TORCH_PIN[@]}" <(echo "$build $python_version $glibc $machine") | sha256sum)
if [ "$(cat "$HOUSE/key" 2>/dev/null)" = "$key" ]; then exit; fi

fresh=$HOUSE.new
pip=(build/pip/bin/python -m pip download --disable-pip-version-check --dest "$fresh" "${target[@]}")
index=
if [ "${#TORCH_PIN[@]}" -gt 0 ]; then index=$(scripts/torch-index.sh); fi

download() {
  rm -rf "$fresh" && mkdir -p "$fresh" &&
    "$PYTHON" -m venv build/pip &&
    "${pip[@]}" --no-deps --require-hashes "${LOCKS[@]/#/--requirement=}" &&
    { [ "${#TORCH_PIN[@]}" = 0 ] || download_torch; }
}

download_torch() { # it is not in the lock, whose versions constrain the packages that it needs
  grep -ohE '^[a-z0-9._-]+==[^ ]+' "${LOCKS[0]}" >build/pins.txt
  "${pip[@]}" ${index:+"$index"} --find-links "$fresh" --constraint build/pins.txt \
    --requirement "${TORCH_PIN[0]}"
}

step "build/wheelhouse-$2.log" \
  "Downloading the wheels of $2 for Python $python_version, glibc 2.$glibc, $machine${TORCH_PIN:+, torch $build}" \
  download
echo "$key" >"$fresh/key"
rm -rf "$HOUSE" && mv "$fresh" "$HOUSE"
