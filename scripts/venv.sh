#!/usr/bin/env bash
# Creates a virtual environment from lock files, unless its stamp is newer than they are: by uv, or by
# pip, which takes minutes more, where uv cannot be had.
# usage: scripts/venv.sh STAMP REQUIREMENTS...
#        STAMP is a file in the environment's folder. A requirements file other than a .lock
#        (torch.in) is installed last, without hashes.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/steps.sh
. scripts/steps.sh

stamp=$1
folder=${stamp%/*}
log=build/${folder##*/}.log
PYTHON=${PYTHON:-python3}
export PYTHON
shift

is_current() {
  local file
  for file in "$@"; do [ ! "$file" -nt "$stamp" ] || return 1; done
  [ -e "$stamp" ]
}

by_uv() { "$PYTHON" scripts/uv_install.py "$uv" "$folder/bin/python" "$@"; }
by_pip() { "$folder/bin/pip" install "$@"; }

fill() { # INSTALLER
  "$PYTHON" -m venv --clear "$folder" &&
    "$1" --require-hashes "${locked[@]}" &&
    { [ "${#open[@]}" = 0 ] || "$1" ${index:+"$index"} "${open[@]}"; }
}

lock "build/${folder##*/}.lock" "setting up $folder"
if is_current "$@"; then exit; fi

locked=() open=() index=''
for file in "$@"; do
  case "$file" in *.lock) locked+=(-r "$file") ;; *) open+=(-r "$file") ;; esac
done
if [ "${#open[@]}" -gt 0 ]; then index=$(scripts/torch-index.sh); fi
# The stamp of another build of torch, too: what is killed from here on must be set up again.
rm -f "$folder"/.stamp*
if ! uv=$(scripts/uv.sh); then
  step "$log" "Setting up $folder by pip, as uv cannot be had: several minutes, once" fill by_pip
elif ! step "$log" "Setting up $folder: a minute, once" fill by_uv; then
  step "$log" "Setting up $folder by pip, as uv could not: several minutes, once" fill by_pip
fi
touch "$stamp"
