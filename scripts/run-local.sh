#!/usr/bin/env bash
# Runs the whole chain, or masks for a folder of films, on this machine: in a container where a
# Docker engine answers, and otherwise in .venv. Results and the S3 server's data: artifacts/.
# usage: scripts/run-local.sh run      with SOURCE SIZE EPOCHS NETWORK RUN_ID, each optional
#        scripts/run-local.sh masks    with FILMS and OUT
# RUNTIME=docker|process settles where.
set -euo pipefail
cd "$(dirname "$0")/.."

FOLDER=artifacts

die() { echo "$*" >&2; exit 2; }

arguments=()
mounts=()
environment=()
network=none
declare -A mounted

mount() { # what lies outside appears in the container under its own path
  if [ -n "${mounted[$1]:-}" ]; then return; fi
  mounted[$1]=yes
  mounts+=(--mount "type=bind,\"source=$1\",\"target=$1\"${2:+,$2}")
}

collect_run() {
  arguments=(run --folder "$FOLDER")
  if [ -n "${SOURCE:-}" ]; then collect_sources; fi
  local name flag
  for name in SIZE EPOCHS NETWORK RUN_ID; do
    flag=${name,,}
    if [ -n "${!name:-}" ]; then arguments+=("--${flag//_/-}" "${!name}"); fi
  done
}

collect_sources() {
  local parts part path
  mapfile -t parts < <(sed -E 's#\+([a-z0-9]+://)#\n\1#g' <<<"$SOURCE")
  for part in "${!parts[@]}"; do
    case "${parts[part]}" in
      file:///*)
        path=$(existing_path "${parts[part]#file://}")
        parts[part]=file://$path
        if [ -e "$path" ]; then mount "$path" readonly; fi ;;
      file://* | synthetic://*) ;;
      *) network=bridge ;;
    esac
  done
  arguments+=(--source "$(IFS=+ && echo "${parts[*]}")")
}

existing_path() { # with .. and %20 resolved; a path that does not exist stays for the job to refuse
  local decoded
  decoded=$(printf '%b' "${1//%/\\x}")
  realpath --canonicalize-existing --quiet "$1" ||
    realpath --canonicalize-existing --quiet "$decoded" || echo "$1"
}

collect_masks() {
  [ -n "${FILMS:-}" ] || die "FILMS is missing: make predict FILMS=./mine OUT=artifacts/mine"
  [ -d "$FILMS" ] || die "FILMS=$FILMS is not a folder: give one that holds PNG, JPEG or TIFF films"
  local out=${OUT:-$FOLDER/masks}
  mkdir -p "$out"
  arguments=(masks --films "$FILMS" --folder "$FOLDER" --to "$out")
  mount "$(realpath --no-symlinks "$out")"
  mount "$(realpath --no-symlinks "$FILMS")" readonly
}

run_in_docker() {
  local image name user
  image=$(docker/image.sh local)
  echo "Running in a container of $image (RUNTIME=process runs in .venv)"
  for name in KAGGLE_API_TOKEN KAGGLE_USERNAME KAGGLE_KEY; do
    if [ -n "${!name:-}" ]; then environment+=(--env "$name"); fi
  done
  if [ "$network" = bridge ]; then
    # An archive of gigabytes goes to the disk: the container's /tmp is memory.
    mkdir -p "$FOLDER/.download"
    environment+=(--env "TMPDIR=$PWD/$FOLDER/.download")
    if [ -d "$HOME/.kaggle" ]; then
      mounts+=(--mount "type=bind,source=$HOME/.kaggle,target=/tmp/.kaggle,readonly")
    fi
  fi
  if [ -t 1 ]; then environment+=(--tty); fi
  user=$(docker/user.sh)
  # The working directory is the same path as here, so that relative paths mean the same.
  exec docker run --rm --init --user "$user" --read-only --tmpfs /tmp \
    --cap-drop ALL --security-opt no-new-privileges --network "$network" --shm-size 1g \
    --workdir "$PWD" "${environment[@]}" "${mounts[@]}" "$image" python -m jobs "${arguments[@]}"
}

run_in_process() {
  if [ -n "${RUNTIME:-}" ]; then echo "Running in .venv, as RUNTIME=process asks"
  else echo "Running in .venv, as no Docker engine answers"; fi
  make --no-print-directory venv
  exec .venv/bin/python -m jobs "${arguments[@]}"
}

mkdir -p "$FOLDER"
mount "$PWD/$FOLDER"
"collect_$1"
runtime=$(scripts/runtime.sh)
"run_in_$runtime"
