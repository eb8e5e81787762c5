#!/usr/bin/env bash
# Fetches the wheels of the image into build/wheelhouse, so that `docker build` needs no network.
# usage: docker/wheelhouse.sh BASE_IMAGE
# The wheels are for the Python and the C library of the base image, not for this machine's.
set -euo pipefail
cd "$(dirname "$0")/.."

BASE_IMAGE=$1
PYTHON=${PYTHON:-python3}
LOCKS=(docker/requirements/jobs.lock docker/requirements/local.lock)
TORCH_PIN=docker/requirements/torch.in
HOUSE=build/wheelhouse

ask_the_base_image() {
  docker run --rm --network none "$BASE_IMAGE" python3 -c '
import platform, sys
print("%d.%d" % sys.version_info[:2], platform.libc_ver()[1].split(".")[1], platform.machine())'
}

answer=$(ask_the_base_image)
read -r python_version glibc machine <<<"$answer"
target=(--only-binary=:all: --python-version "$python_version" --implementation cp)
# Given one platform, pip takes no older one for it: every manylinux that the image runs is named.
for minor in $(seq "$glibc" -1 5); do target+=(--platform "manylinux_2_${minor}_$machine"); done
target+=(--platform "manylinux2014_$machine" --platform "linux_$machine")

key=$(cat "${LOCKS[@]}" "$TORCH_PIN" <(echo "${TORCH:-cpu} $python_version $glibc $machine") | sha256sum)
if [ "$(cat "$HOUSE/key" 2>/dev/null)" = "$key" ]; then exit; fi

echo "fetching wheels for Python $python_version, glibc 2.$glibc, $machine, torch ${TORCH:-cpu}"
fresh=$HOUSE.new
rm -rf "$fresh" && mkdir -p "$fresh"
"$PYTHON" -m venv build/pip
pip=(build/pip/bin/python -m pip download -qq --disable-pip-version-check --dest "$fresh" "${target[@]}")
"${pip[@]}" --no-deps --require-hashes "${LOCKS[@]/#/--requirement=}"
# torch stands outside the lock, and is held to the lock's versions of what it needs.
grep -ohE '^[a-z0-9._-]+==[^ ]+' docker/requirements/jobs.lock >build/pins.txt
index=$(docker/torch-index.sh)
"${pip[@]}" ${index:+"$index"} --find-links "$fresh" --constraint build/pins.txt --requirement "$TORCH_PIN"
echo "$key" >"$fresh/key"
rm -rf "$HOUSE" && mv "$fresh" "$HOUSE"
du -sh "$HOUSE"
