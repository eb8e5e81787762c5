#!/usr/bin/env bash
# Serves Airflow with PostgreSQL and S3 in containers (docker/compose.yaml), or stops it.
# usage: docker/compose.sh up
#        docker/compose.sh down      the data stay, unless VOLUMES=1
# docker/.env, written by the first `up`, holds the settings and secrets; ENV_FILE names another.
set -euo pipefail
cd "$(dirname "$0")/.."

# Drawn films, by the defaults of `make run-local`.
FIRST_RUN="make dag-run SOURCE='synthetic://phantoms?films=48&seed=0' SIZE=256 EPOCHS=16 NETWORK=small"
WAIT_SECONDS=300
JOBS_SECONDS=20
LOG=build/compose.log
ENV_FILE=$(realpath --canonicalize-missing "${ENV_FILE:-docker/.env}")

die() { echo "$*" >&2; exit 1; }
serving() { echo "artifacts/airflow-up-$(setting COMPOSE_PROJECT_NAME)/serving.json"; }
setting() { sed -n "s/^$1=//p" "$ENV_FILE" | tail -n 1; }

compose() { # from docker/, where Compose finds compose.override.yaml
  if docker compose version >/dev/null 2>&1; then
    (cd docker && docker compose --env-file "$ENV_FILE" "$@")
  else
    (cd docker && docker-compose --env-file "$ENV_FILE" "$@")
  fi
}

need_engine() {
  timeout 10 docker version >/dev/null 2>&1 ||
    die "no Docker engine answers to $(id -un): run 'sudo make engine', or join the group docker"
  docker compose version >/dev/null 2>&1 || command -v docker-compose >/dev/null ||
    die "Docker Compose is missing: run 'sudo make engine'"
}

write_env_file() {
  local name=${COMPOSE_PROJECT_NAME:-lung}
  if [ ! -e "$ENV_FILE" ] && docker volume inspect "${name}_postgres" >/dev/null 2>&1; then
    die "the data of $name exist, but $ENV_FILE with their passwords is missing: restore it, or" \
      "delete the data: docker volume rm ${name}_{logs,postgres,s3}"
  fi
  docker/env-file.sh "$ENV_FILE"
}

record() { # NAME VALUE: in the file, for a docker compose typed by hand
  if grep -q "^$1=" "$ENV_FILE"; then sed -i "s|^$1=.*|$1=$2|" "$ENV_FILE"
  else echo "$1=$2" >>"$ENV_FILE"; fi
}

record_machine() { # AIRFLOW_IMAGE POSTGRES_IMAGE: these, the GPUs, and the engine's socket as containers see it
  local engine gpus socket
  gpus=$(scripts/gpu-count.sh docker "$(setting LUNG_GPUS)") || die "LUNG_GPUS is set in $ENV_FILE"
  record LUNG_GPU_COUNT "$gpus"
  engine=$(docker context inspect --format '{{.Endpoints.docker.Host}}')
  socket=/var/run/docker.sock
  case $engine in unix://*) socket=${engine#unix://} ;; esac
  record LUNG_AIRFLOW_IMAGE "$1"
  record LUNG_POSTGRES_IMAGE "$2"
  record LUNG_SOCKET "$socket"
  record LUNG_SOCKET_GROUP "$(docker run --rm --network none --volume "$socket:/engine" "$1" \
    stat --format %g /engine)"
}

write_serving() { # FILE: the address and credentials of this Airflow, for `make dag-run`
  mkdir -p "${1%/*}"
  (umask 077 && cat >"$1.partial") <<JSON
{"AIRFLOW_URL": "http://127.0.0.1:$(setting LUNG_AIRFLOW_PORT)", "AIRFLOW_USER": "admin",
 "AIRFLOW_PASSWORD": "$(setting LUNG_ADMIN_PASSWORD)",
 "AWS_ENDPOINT_URL": "http://127.0.0.1:$(setting LUNG_S3_PORT)", "AWS_DEFAULT_REGION": "us-east-1",
 "AWS_ACCESS_KEY_ID": "$(setting LUNG_S3_ACCESS_KEY)",
 "AWS_SECRET_ACCESS_KEY": "$(setting LUNG_S3_SECRET_KEY)",
 "LUNG_BACKEND": "docker", "LUNG_BUCKET_URI": "$(setting LUNG_BUCKET_URI)"}
JSON
  mv "$1.partial" "$1"
}

states() { # one line per container, as in "s3 running Up 5 seconds (healthy)"
  docker ps --all --filter "label=com.docker.compose.project=$(setting COMPOSE_PROJECT_NAME)" \
    --format '{{.Label "com.docker.compose.service"}} {{.State}} {{.Status}}' | sort
}

failed() { states | awk '/ restarting | Exited \([^0]|\(unhealthy\)/ { print $1 }'; }

give_up() { # SERVICE...: prints the last lines of their logs
  local service
  for service in "$@"; do
    echo "--- $service ---" >&2
    compose logs --no-color --tail 20 "$service" >&2
  done
  die "Airflow did not start${*:+: see $* above}. 'make up' tries again; the ports are set in" \
    "$ENV_FILE"
}

wait_until_ready() {
  local waiting printed=
  for _ in $(seq "$WAIT_SECONDS"); do
    # shellcheck disable=SC2046  # names of services, one word each
    [ -z "$(failed)" ] || give_up $(failed)
    waiting=$(states | awk '!/\(healthy\)| Exited \(0\)/ { print $1 }' | paste --serial --delimiters ' ')
    [ -n "$waiting" ] || return 0
    [ "$waiting" = "$printed" ] || echo "  waiting for $waiting"
    printed=$waiting
    sleep 1
  done
  # shellcheck disable=SC2086
  give_up $waiting
}

up() {
  local airflow postgres replaced
  write_env_file
  mapfile -t replaced < <(docker image inspect --format '{{.Id}}' lung-{jobs,airflow}:local 2>/dev/null)
  postgres=$(docker/base-image.sh postgres)
  docker/image.sh local >/dev/null
  airflow=$(docker/image.sh airflow)
  unset "${!COMPOSE_@}" "${!LUNG_@}" # Compose would prefer them to the file's settings
  record_machine "$airflow" "$postgres"
  echo "Starting PostgreSQL, S3 and Airflow: a minute or two"
  # shellcheck disable=SC2046
  compose up --detach --remove-orphans >"$LOG" 2>&1 || { tail -n 5 "$LOG" >&2; give_up $(failed); }
  wait_until_ready
  # While the old containers ran, their images could not be removed.
  docker/remove-nameless.sh "$LOG" "${replaced[@]}"
  write_serving "$(serving)"
  echo
  echo "  Airflow   http://127.0.0.1:$(setting LUNG_AIRFLOW_PORT)"
  echo "  user      admin"
  echo "  password  $(setting LUNG_ADMIN_PASSWORD)"
  echo "  GPUs      $(setting LUNG_GPU_COUNT)"
  echo "  S3        http://127.0.0.1:$(setting LUNG_S3_PORT), keys: LUNG_S3_* in the settings"
  echo "  settings  $ENV_FILE"
  printf '\nA first run, on drawn films:\n  %s\n' "$FIRST_RUN"
}

down() {
  [ -e "$ENV_FILE" ] || die "there is no $ENV_FILE: 'make up' was never run here"
  unset "${!COMPOSE_@}" "${!LUNG_@}"
  rm -f "$(serving)"
  rmdir "$(dirname "$(serving)")" 2>/dev/null || true
  # The scheduler first: its tasks stop their jobs, whose containers would keep the network in use.
  compose stop scheduler >"$LOG" 2>&1 || true
  local jobs=(docker ps --all --quiet --filter "network=$(setting COMPOSE_PROJECT_NAME)_jobs"
    --filter label=lung.dag)
  for _ in $(seq "$JOBS_SECONDS"); do
    [ -n "$("${jobs[@]}")" ] || break
    sleep 1
  done
  "${jobs[@]}" | xargs --no-run-if-empty docker rm --force --volumes >>"$LOG"
  local volumes=()
  if [ "${VOLUMES:-}" = 1 ]; then volumes=(--volumes); fi
  compose down --remove-orphans "${volumes[@]}" >>"$LOG" 2>&1 || { tail -n 5 "$LOG" >&2; exit 1; }
  if [ "${VOLUMES:-}" = 1 ]; then echo "Stopped; the data are removed"
  else echo "Stopped; the data are kept, 'make down VOLUMES=1' removes them"; fi
}

mkdir -p build
need_engine
case "${1:-}" in
  up | down) "$1" ;;
  *) die "usage: docker/compose.sh up|down" ;;
esac
