# shellcheck shell=bash
# How the scripts of the set-up wait for one another and show what they do. Source it.

STEPS_LAST_LINES=20

lock() { # FILE WORK: of two commands at once the second waits until the first ends
  begin "$1"
  exec 9>>"$1"
  if flock --nonblock 9; then return; fi
  echo "Waiting for another command, which is $2" >&2
  flock 9
}

# Runs a command whose output is long: all of it goes to LOG, which a failure names. A terminal shows
# one line that moves, anything else one line. Call it where `set -e` ends the script, or test its code.
step() { # LOG TEXT COMMAND...
  local log=$1 text=$2 started=$SECONDS painter='' code=0
  shift 2
  begin "$log"
  : >"$log"
  if [ -t 2 ] && [ "${TERM:-dumb}" != dumb ]; then
    paint "$log" "$text" "$started" &
    painter=$!
  else
    echo "$text" >&2
  fi
  "$@" >>"$log" 2>&1 || code=$?
  if [ -n "$painter" ]; then
    kill "$painter" 2>/dev/null || true
    wait "$painter" 2>/dev/null || true
    printf '\r\033[K%s: %d s\n' "$text" $((SECONDS - started)) >&2
  fi
  if [ "$code" != 0 ]; then
    tail -n "$STEPS_LAST_LINES" "$log" >&2
    echo "$text: failed; all of its output: $log" >&2
  fi
  return "$code"
}

begin() { # FILE: creates it; for the owner of the project, where root runs this
  mkdir -p "${1%/*}"
  : >>"$1"
  chown --reference=. "${1%/*}" "$1" 2>/dev/null || true
}

paint() { # LOG TEXT STARTED: the seconds and the last line of the log, until the script ends
  local columns last
  while sleep 0.5 && kill -0 $$ 2>/dev/null; do
    columns=$(stty size <&2 2>/dev/null | cut -d ' ' -f 2)
    last=$(tail -c 2000 "$1" | tr '\r' '\n' | tr -cd '[:print:]\n' | grep -v '^ *$' | tail -n 1)
    last="$2: $((SECONDS - $3)) s  $last"
    printf '\r\033[K%s' "${last:0:$((${columns:-80} > 20 ? ${columns:-80} - 1 : 79))}" >&2
  done
}
