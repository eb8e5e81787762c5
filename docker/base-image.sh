#!/usr/bin/env bash
# Prints the name of the image to build on, and gets that image first where it is not here yet:
# the official Python image, or, where no registry can be reached, one made from Debian packages.
set -euo pipefail

OFFICIAL=python:3.11-slim-bookworm
LOCAL=lung-base:bookworm
PACKAGES=python3,python3-venv,ca-certificates

die() { echo "docker/base-image.sh: $*" >&2; exit 1; }
is_here() { docker image inspect "$1" >/dev/null 2>&1; }

mirror() {
  local found
  found=$(grep -rhoE 'https?://[^] ]+/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d \
    2>/dev/null | grep -v snapshot | head -n 1 || true)
  echo "${found:-http://deb.debian.org/debian}"
}

make_from_debian_packages() {
  [ "$(id -u)" = 0 ] || die "no registry gives $OFFICIAL, and a base image from Debian packages" \
    "needs root: run 'sudo docker/base-image.sh' once, or set BASE_IMAGE to an image that is here"
  command -v debootstrap >/dev/null || die "debootstrap is missing: run 'sudo make engine' once"
  local root
  root=$(mktemp -d)
  # shellcheck disable=SC2064  # the folder's name is known now, not when the trap runs
  trap "rm -rf --one-file-system '$root'" EXIT
  # shellcheck disable=SC2046
  debootstrap --variant=minbase --include="$PACKAGES" bookworm "$root" $(mirror) >&2
  rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* \
    "$root"/usr/share/{man,locale}/*
  find "$root/usr/share/doc" -type f -not -name copyright -delete
  tar --create --numeric-owner --directory "$root" . | docker import - "$LOCAL" >&2
}

for image in ${BASE_IMAGE:-$OFFICIAL $LOCAL}; do
  if is_here "$image"; then echo "$image"; exit; fi
done
wanted=${BASE_IMAGE:-$OFFICIAL}
echo "pulling $wanted" >&2
if timeout 300 docker pull --quiet "$wanted" >&2; then echo "$wanted"; exit; fi
[ -z "${BASE_IMAGE:-}" ] || die "BASE_IMAGE $BASE_IMAGE is not here and cannot be pulled"
echo "no registry gives $OFFICIAL: making $LOCAL from Debian packages" >&2
make_from_debian_packages
echo "$LOCAL"
