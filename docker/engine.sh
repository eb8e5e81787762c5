#!/usr/bin/env bash
# Installs Docker and Compose if missing (Debian, Ubuntu), starts the engine if it does not answer,
# and prints the versions. BROWSER=1 also installs Chromium, which the tests of the web page use. The
# only script that installs system packages.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/steps.sh
. scripts/steps.sh

LOG=/var/log/dockerd.log
WAIT_SECONDS=60

die() { echo "make engine: $*" >&2; exit 1; }
answers() { timeout 10 docker version >/dev/null 2>&1; }
has() { command -v "$1" >/dev/null 2>&1; }
has_compose() { docker compose version >/dev/null 2>&1 || has docker-compose; }

missing_packages() {
  has dockerd || echo docker.io
  has debootstrap || printf '%s\n' debootstrap debian-archive-keyring
  has_compose || echo docker-compose
  if [ "${BROWSER:-}" = 1 ] && ! has chromedriver; then printf '%s\n' chromium chromium-driver fonts-liberation; fi
}

install_packages() { # PACKAGE...
  apt-get update -q && apt_install "$@" &&
    # In newer Debian releases the client is a separate package.
    { has docker || apt_install docker-cli; }
}

apt_install() { DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"; }

start() {
  if [ -d /run/systemd/system ]; then
    systemctl start docker
  else
    remove_stale_pid_file dockerd /var/run/docker.pid
    remove_stale_pid_file containerd /var/run/docker/containerd/containerd.pid
    setsid dockerd >>"$LOG" 2>&1 </dev/null &
  fi
}

# A killed engine leaves its pid file, and a new one refuses to start while any process has that pid,
# even a zombie. The file is kept only where a live process of that name has the pid.
remove_stale_pid_file() { # NAME FILE
  [ -e "$2" ] || return 0
  local pid
  pid=$(<"$2")
  if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" != "$1" ] || grep -q '^State:.Z' "/proc/$pid/status"; then
    rm -f "$2"
  fi
}

wait_until_it_answers() {
  for _ in $(seq "$WAIT_SECONDS"); do
    if answers; then return; fi
    sleep 1
  done
  tail -n 5 "$LOG" >&2 2>/dev/null || true
  die "the engine did not answer within $WAIT_SECONDS s: see $LOG or 'journalctl -u docker'"
}

if [ "$(id -u)" = 0 ]; then
  mapfile -t packages < <(missing_packages)
  if [ "${#packages[@]}" -gt 0 ]; then
    has apt-get || die "no apt-get here: install Docker by https://docs.docker.com/engine/install/"
    step build/engine.log "Installing ${packages[*]}" install_packages "${packages[@]}"
  fi
  if ! answers; then start; wait_until_it_answers; fi
elif ! answers; then
  die "no Docker engine answers to $(id -un): run 'sudo make engine', or join the group docker"
fi
docker version --format 'Docker engine {{.Server.Version}}, client {{.Client.Version}}'
docker compose version 2>/dev/null || docker-compose --version ||
  echo "Compose is missing, which 'make up' needs: run 'sudo make engine'"
