#!/usr/bin/env bash
# Creates a virtual environment from lock files, unless its stamp is newer than they are.
# usage: scripts/venv.sh STAMP REQUIREMENTS...
#        STAMP is a file in the environment's folder. A requirements file other than a .lock
#        (torch.in) is installed last, without hashes.
set -euo pipefail
cd "$(dirname "$0")/.."

stamp=$1
folder=${stamp%/*}
shift

is_current() {
  local file
  for file in "$@"; do [ ! "$file" -nt "$stamp" ] || return 1; done
  [ -e "$stamp" ]
}

# Of two commands at once the second waits for the first and finds the environment there.
mkdir -p build
exec 9>"build/${folder##*/}.lock"
flock 9
if is_current "$@"; then exit; fi

echo "Setting up $folder: a few minutes, once"
locked=() open=()
for file in "$@"; do
  case "$file" in *.lock) locked+=(-r "$file") ;; *) open+=(-r "$file") ;; esac
done
"${PYTHON:-python3}" -m venv --clear "$folder"
"$folder/bin/pip" install -qq --require-hashes "${locked[@]}"
if [ "${#open[@]}" -gt 0 ]; then
  index=$(scripts/torch-index.sh)
  "$folder/bin/pip" install -qq ${index:+"$index"} "${open[@]}"
fi
touch "$stamp"
