#!/usr/bin/env bash
# Prints the name of the base image, and gets the image first if it is missing: the official one or,
# where no registry can be reached, one of Debian packages. PostgreSQL's is then made on that same base.
# usage: docker/base-image.sh [python|postgres]      BASE_IMAGE or POSTGRES_IMAGE names another image
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/steps.sh
. scripts/steps.sh

PACKAGES=python3,python3-venv,ca-certificates
DEBIAN_BASE=lung-base:bookworm
DEBS=build/postgres-debs
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

kind=${1:-python}
case $kind in
  python)
    OFFICIAL=python:3.11-slim-bookworm
    LOCAL=$DEBIAN_BASE
    CHOSEN=${BASE_IMAGE:-} VARIABLE=BASE_IMAGE ;;
  postgres)
    OFFICIAL=postgres:15-bookworm
    LOCAL=lung-postgres:15-$(cat docker/postgres{-start.sh,.Dockerfile} | sha256sum | cut -c 1-8)
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

make_debian_base() ( # a subshell, whose folder goes at its end
  exists $DEBIAN_BASE && return
  [ "$(id -u)" = 0 ] || die "no registry has $OFFICIAL, and an image of Debian packages needs root:" \
    "run 'sudo docker/base-image.sh' once, or set $VARIABLE to an existing image"
  command -v debootstrap >/dev/null || die "debootstrap is missing: run 'sudo make engine' once"
  root=$(mktemp -d)
  trap 'rm -rf --one-file-system "$root"' EXIT
  # shellcheck disable=SC2046
  step build/base-image.log "Making $DEBIAN_BASE of Debian packages: a minute or two, once" \
    debootstrap --variant=minbase --include="$PACKAGES" bookworm "$root" $(mirror)
  rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* \
    "$root"/usr/share/{man,locale}/*
  find "$root/usr/share/doc" -type f -not -name copyright -delete
  tar --create --numeric-owner --directory "$root" . | docker import - $DEBIAN_BASE >/dev/null
)

make_postgres() {
  step build/postgres-debs.log "Downloading PostgreSQL's Debian packages" download_postgres
  trap 'docker/remove-nameless.sh build/postgres-image.log' EXIT
  step build/postgres-image.log "Making $LOCAL on $DEBIAN_BASE" build_postgres
}

# By this machine's apt, with its proxies and certificates, for the packages that the base has.
download_postgres() {
  local root=$PWD/build/postgres-apt architecture apt
  rm -rf "$root" $DEBS
  mkdir -p $DEBS "$root"/etc/apt/{apt.conf.d,preferences.d,sources.list.d,trusted.gpg.d} \
    "$root"/var/{lib/dpkg,lib/apt/lists/partial,cache/apt/archives/partial} &&
    echo "deb [signed-by=$KEYRING] $(mirror) bookworm main" >"$root/etc/apt/sources.list" &&
    architecture=$(in_base dpkg --print-architecture) &&
    in_base cat /var/lib/dpkg/status >"$root/var/lib/dpkg/status" || return
  apt=(apt-get --yes -o "Dir=$root" -o "APT::Architecture=$architecture"
    -o "APT::Architectures=$architecture" -o APT::Sandbox::User=root)
  "${apt[@]}" update &&
    "${apt[@]}" install --download-only --no-install-recommends postgresql-15 &&
    mv "$root"/var/cache/apt/archives/*.deb $DEBS &&
    rm -rf "$root"
}

in_base() { docker run --rm --network none $DEBIAN_BASE "$@"; }

build_postgres() {
  tar --create $DEBS docker/postgres{-start.sh,.Dockerfile} |
    docker build --force-rm --network none --file docker/postgres.Dockerfile \
      --build-arg BASE_IMAGE=$DEBIAN_BASE --tag "$LOCAL" - && rm -rf $DEBS
}

timeout 10 docker version >/dev/null 2>&1 ||
  die "no Docker engine answers to $(id -un): start one ('sudo make engine'), or join the group docker"

lock build/base-image.lock "getting a base image"
for image in ${CHOSEN:-$OFFICIAL $LOCAL}; do
  if exists "$image"; then echo "$image"; exit; fi
done
image=${CHOSEN:-$OFFICIAL}
echo "Pulling $image" >&2
if timeout 300 docker pull --quiet "$image" >&2; then echo "$image"; exit; fi
[ -z "$CHOSEN" ] || die "$VARIABLE $CHOSEN is missing and cannot be pulled"
echo "No registry has $OFFICIAL: Debian packages make $LOCAL" >&2
make_debian_base
if [ "$kind" = postgres ]; then make_postgres; fi
echo "$LOCAL"
