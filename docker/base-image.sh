#!/usr/bin/env bash
# Prints the name of the base image, and gets the image first if it is missing: the official one or,
# where no registry can be reached, one built from Debian packages.
# usage: docker/base-image.sh [python|postgres]      BASE_IMAGE or POSTGRES_IMAGE names another image
set -euo pipefail
cd "$(dirname "$0")/.."

START=docker/postgres-start.sh

kind=${1:-python}
case $kind in
  python)
    OFFICIAL=python:3.11-slim-bookworm
    LOCAL=lung-base:bookworm
    PACKAGES=python3,python3-venv,ca-certificates
    CHOSEN=${BASE_IMAGE:-} VARIABLE=BASE_IMAGE ;;
  postgres)
    OFFICIAL=postgres:15-bookworm
    LOCAL=lung-postgres:15-$(sha256sum $START | cut -c 1-8)
    PACKAGES=postgresql-15
    CHOSEN=${POSTGRES_IMAGE:-} VARIABLE=POSTGRES_IMAGE ;;
  *) echo "docker/base-image.sh: '$kind' is not one of python, postgres" >&2; exit 2 ;;
esac

die() { echo "docker/base-image.sh: $*" >&2; exit 1; }
exists() { docker image inspect "$1" >/dev/null 2>&1; }

mirror() {
  local url
  url=$(grep -rhoE 'https?://[^] ]+/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d \
    2>/dev/null | grep -v snapshot | head -n 1 || true)
  echo "${url:-http://deb.debian.org/debian}"
}

build_from_debian_packages() {
  [ "$(id -u)" = 0 ] || die "no registry has $OFFICIAL, and building an image from Debian packages" \
    "needs root: run 'sudo docker/base-image.sh $kind' once, or set $VARIABLE to an existing image"
  command -v debootstrap >/dev/null || die "debootstrap is missing: run 'sudo make engine' once"
  local root changes=()
  root=$(mktemp -d)
  # shellcheck disable=SC2064  # expands now: the variable is gone when the trap runs
  trap "rm -rf --one-file-system '$root'" EXIT
  # shellcheck disable=SC2046
  debootstrap --variant=minbase --include="$PACKAGES" bookworm "$root" $(mirror) >&2
  rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* \
    "$root"/usr/share/{man,locale}/*
  find "$root/usr/share/doc" -type f -not -name copyright -delete
  if [ "$kind" = postgres ]; then finish_postgres "$root"; fi
  tar --create --numeric-owner --directory "$root" . | docker import "${changes[@]}" - "$LOCAL" >&2
}

finish_postgres() { # ROOT: sets the user id, folders and start of the official image, and $changes
  sed -i -E 's/^postgres:x:[0-9]+:[0-9]+:/postgres:x:999:999:/' "$1/etc/passwd"
  sed -i -E 's/^postgres:x:[0-9]+:/postgres:x:999:/' "$1/etc/group"
  rm -rf "$1"/var/lib/postgresql "$1"/run/postgresql
  install -d -o 999 -g 999 "$1"/var/lib/postgresql{,/data} "$1"/run/postgresql
  install -m 755 $START "$1/usr/local/bin/postgres-start"
  changes=(--change 'ENV PATH=/usr/lib/postgresql/15/bin:/usr/local/bin:/usr/bin:/bin'
    --change 'USER 999:999' --change 'ENTRYPOINT ["postgres-start"]')
}

timeout 10 docker version >/dev/null 2>&1 ||
  die "no Docker engine answers to $(id -un): start one ('sudo make engine'), or join the group docker"

for image in ${CHOSEN:-$OFFICIAL $LOCAL}; do
  if exists "$image"; then echo "$image"; exit; fi
done
image=${CHOSEN:-$OFFICIAL}
echo "pulling $image" >&2
if timeout 300 docker pull --quiet "$image" >&2; then echo "$image"; exit; fi
[ -z "$CHOSEN" ] || die "$VARIABLE $CHOSEN is missing and cannot be pulled"
echo "no registry has $OFFICIAL: building $LOCAL from Debian packages" >&2
build_from_debian_packages
echo "$LOCAL"
