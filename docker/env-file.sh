#!/usr/bin/env bash
# Writes the settings and secrets of `make up` to a file; to one that exists it adds the settings that
# are missing, as in a file of an older version. docker/settings.env has their defaults, which variables
# of the same names replace.
# usage: docker/env-file.sh FILE
set -euo pipefail

SETTINGS=$(dirname "$0")/settings.env

secret() { head -c "${1:-48}" /dev/urandom | base64 --wrap 0 | tr '+/' '-_'; }

settings_missing_in() { # FILE: prints them, each below its comment
  local line name comment=
  while IFS= read -r line; do
    case $line in
      "#"*) comment=$line ;;
      *)
        name=${line%%=*}
        if ! grep -q "^$name=" "$1"; then printf '%s\n' "$comment" "$name=${!name:-${line#*=}}"; fi ;;
    esac
  done <"$SETTINGS"
}

write() { # the file of a new installation
  cat <<ENV
# Settings and secrets of this Airflow: back them up with its data. After a change: make up
COMPOSE_PROJECT_NAME=${COMPOSE_PROJECT_NAME:-lung}
# Ports of Airflow and S3 on 127.0.0.1: only this machine reaches them.
LUNG_AIRFLOW_PORT=${LUNG_AIRFLOW_PORT:-8080}
LUNG_S3_PORT=${LUNG_S3_PORT:-8333}
# Password of the user admin.
LUNG_ADMIN_PASSWORD=$(secret | cut -c 1-20)
# docker/compose.yaml sets LUNG_BACKEND, LUNG_DOCKER_NETWORK and LUNG_POOL.
$(settings_missing_in /dev/null)
# The data depend on these: do not change them.
LUNG_DATABASE_PASSWORD=$(secret)
LUNG_FERNET_KEY=$(secret 32)
LUNG_JWT_SECRET=$(secret)
LUNG_SECRET_KEY=$(secret)
LUNG_S3_ACCESS_KEY=lung$(secret | tr -d '_-' | cut -c 1-16)
LUNG_S3_SECRET_KEY=$(secret)
# Written by make up.
ENV
}

umask 077
if [ ! -e "$1" ]; then
  echo "Writing settings and secrets to $1"
  write >"$1.partial"
  mv "$1.partial" "$1"
  exit
fi
missing=$(settings_missing_in "$1")
if [ -n "$missing" ]; then
  echo "Adding settings to $1: $(grep -v '^#' <<<"$missing" | cut -d = -f 1 | paste --serial --delimiters ' ')"
  [ -z "$(tail -c 1 "$1")" ] || echo >>"$1" # a last line without its end
  printf '%s\n' "$missing" >>"$1"
fi
