#!/usr/bin/env bash
# Runs the whole chain, or masks a folder of films, on this machine: in a container where a Docker
# engine answers, in .venv otherwise. Results and the S3 server's data: artifacts/.
# usage: scripts/run-local.sh run      variables SOURCE SIZE EPOCHS NETWORK PROCESSES RUN_ID, all optional
#        scripts/run-local.sh masks    variables FILMS and OUT
# RUNTIME=docker|process overrides the choice. Where this machine has GPUs the first is used, or as
# many as PROCESSES for a training; CUDA_VISIBLE_DEVICES picks others, TORCH=cpu none.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/nvidia.sh
. scripts/nvidia.sh

FOLDER=artifacts
# Prints the number of GPUs that torch can use and the first one's name; nothing where there is none.
PRINT_GPUS='import torch
if torch.cuda.is_available(): print(torch.cuda.device_count(), torch.cuda.get_device_name())'

die() { echo "$*" >&2; exit 2; }

arguments=()
mounts=()
environment=()
network=none
declare -A mounted

mount() { # PATH [OPTIONS]: the container sees it under the same path
  if [ -n "${mounted[$1]:-}" ]; then return; fi
  mounted[$1]=yes
  mounts+=(--mount "type=bind,\"source=$1\",\"target=$1\"${2:+,$2}")
}

collect_run() {
  arguments=(run --folder "$FOLDER")
  if [ -n "${SOURCE:-}" ]; then collect_sources; fi
  local name flag
  for name in SIZE EPOCHS NETWORK PROCESSES RUN_ID; do
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

existing_path() { # resolves .. and %20; a missing path is printed as it is, and the job refuses it
  local decoded
  decoded=$(printf '%b' "${1//%/\\x}")
  realpath --canonicalize-existing --quiet "$1" ||
    realpath --canonicalize-existing --quiet "$decoded" || echo "$1"
}

collect_masks() {
  [ -n "${FILMS:-}" ] || die "FILMS is missing: make predict FILMS=./mine OUT=artifacts/mine"
  [ -d "$FILMS" ] || die "FILMS=$FILMS is not a folder: give one with films"
  local out=${OUT:-$FOLDER/masks}
  mkdir -p "$out"
  arguments=(masks --films "$FILMS" --folder "$FOLDER" --to "$out")
  mount "$(realpath --no-symlinks "$out")"
  mount "$(realpath --no-symlinks "$FILMS")" readonly
  mount_links "$FILMS"
}

# The container sees what is mounted alone: also mount the folders that links in FOLDER lead to.
mount_links() { # FOLDER
  local link target folder
  local -A folders=()
  folder=$(realpath "$1")
  while IFS= read -r -d '' link; do
    # A link may lead to another one: each on the way must be there.
    while [ -L "$link" ]; do
      target=$(cd "$(dirname "$link")" && realpath --no-symlinks --canonicalize-missing "$(readlink "$link")")
      if [ -n "${folders[$target]:-}" ]; then break; fi
      folders[$target]=$(dirname "$target")
      link=$target
    done
  done < <(find "$folder" -type l -print0)
  if [ ${#folders[@]} = 0 ]; then return; fi
  while IFS= read -r target; do
    case "$target/" in "$folder"/* | /) continue ;; esac
    if [ -d "$target" ]; then mount "$target" readonly; fi
  done < <(printf '%s\n' "${folders[@]}" | sort -u)
  # The engine's command line has room for thousands.
  if [ ${#mounts[@]} -gt 2000 ]; then
    die "the links in $1 lead to over 1000 folders: use RUNTIME=process, or a folder of copies"
  fi
}

wants_gpus() {
  [ "$(scripts/torch-build.sh)" = cuda ] || return
  case "${CUDA_VISIBLE_DEVICES-all}" in "" | -1) return 1 ;; esac
}

# Sets `gpus`. GPUs that are there are used: an engine that cannot pass them on is an error, not a slow run.
choose_gpus() {
  local info
  wants_gpus || return 0
  info=$(docker info --format '{{json .}}')
  driver_gpus >/dev/null || [[ $info == *nvidia.com/gpu=* ]] || return 0
  # Docker serves --gpus by NVIDIA's hook, whether its runtime is registered or not, or by CDI.
  [[ $info == *'"nvidia"'* || $info == *nvidia.com/gpu=* ]] ||
    command -v nvidia-container-runtime-hook >/dev/null || command -v nvidia-cdi-hook >/dev/null ||
    die "the Docker engine cannot pass on this machine's GPUs: install NVIDIA's container toolkit" \
      "(docs/gpu-node.md), or RUNTIME=process, or TORCH=cpu to compute on the CPU"
  gpus=(--gpus all)
}

say_gpus() { # COMMAND...: python beside the GPUs; prints which of them are used
  local errors answer count name
  errors=$(mktemp)
  answer=$("$@" -c "$PRINT_GPUS" 2>"$errors") || true
  if [ -z "$answer" ]; then
    answer=$(grep --max-count 1 '^docker: ' "$errors" || tail -n 1 "$errors")
    rm -f "$errors"
    die "this machine has GPUs, but PyTorch reaches none${answer:+ ($answer)}: see docs/gpu-node.md, or" \
      "TORCH=cpu to compute on the CPU"
  fi
  rm -f "$errors"
  read -r count name <<<"$answer"
  case $count:${arguments[0]}:${PROCESSES:-} in
    1:*) echo "Computes on the GPU, $name" ;;
    *:masks:*) echo "Computes on 1 of $count GPUs, $name" ;;
    *:run:) echo "Computes on 1 of $count GPUs, $name (PROCESSES=$count: trains on all)" ;;
    *:run:0) echo "Computes on $count GPUs, $name" ;;
    *) echo "Computes on $PROCESSES of $count GPUs, $name" ;;
  esac
}

run_in_docker() {
  local image name options user gpus=()
  choose_gpus
  image=$(docker/image.sh local)
  echo "Running in a container of $image (RUNTIME=process runs in .venv)"
  for name in KAGGLE_API_TOKEN KAGGLE_USERNAME KAGGLE_KEY; do
    if [ -n "${!name:-}" ]; then environment+=(--env "$name"); fi
  done
  if [ "$network" = bridge ]; then
    # Downloads of gigabytes go to the disk: the container's /tmp is in memory.
    mkdir -p "$FOLDER/.download"
    environment+=(--env "TMPDIR=$PWD/$FOLDER/.download")
    if [ -d "$HOME/.kaggle" ]; then
      mounts+=(--mount "type=bind,source=$HOME/.kaggle,target=/tmp/.kaggle,readonly")
    fi
  fi
  if [ -t 1 ]; then environment+=(--tty); fi
  user=$(docker/user.sh)
  options=(--rm --init --user "$user" --read-only --tmpfs /tmp --cap-drop ALL
    --security-opt no-new-privileges "${gpus[@]}")
  if [ -n "${CUDA_VISIBLE_DEVICES:-}" ]; then options+=(--env CUDA_VISIBLE_DEVICES); fi
  if [ ${#gpus[@]} = 0 ]; then echo "Computes on the CPU"
  else say_gpus docker run "${options[@]}" --network none "$image" python; fi
  # The same working directory as here, so that relative paths are valid in the container.
  exec docker run "${options[@]}" --network "$network" --shm-size 1g --workdir "$PWD" \
    "${environment[@]}" "${mounts[@]}" "$image" python -m jobs "${arguments[@]}"
}

run_in_process() {
  if [ -n "${RUNTIME:-}" ]; then echo "Running in .venv, as RUNTIME=process asks"
  else echo "Running in .venv, as no Docker engine answers"; fi
  make --no-print-directory venv
  if wants_gpus && driver_gpus >/dev/null; then say_gpus .venv/bin/python
  else echo "Computes on the CPU"; fi
  exec .venv/bin/python -m jobs "${arguments[@]}"
}

mkdir -p "$FOLDER"
mount "$PWD/$FOLDER"
"collect_$1"
runtime=$(scripts/runtime.sh)
"run_in_$runtime"
