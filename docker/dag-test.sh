#!/usr/bin/env bash
# Runs the DAG in this process, without a scheduler, over phantoms or SOURCE; exit code 0 only if the
# run succeeded. Airflow's database and S3 are of this run's own and are removed.
# Variables: BACKEND=process|docker SOURCE SIZE EPOCHS BASE_CHANNELS
set -euo pipefail
cd "$(dirname "$0")/.."

BACKEND=${BACKEND:-process}
out=s3://lung/pipeline

connection() { # the AWS_* of the S3 server as an Airflow connection
  .venv-airflow/bin/python - <<'PYTHON'
import json, os
from os import environ
extra = {"endpoint_url": environ["AWS_ENDPOINT_URL"], "region_name": environ["AWS_DEFAULT_REGION"]}
print(json.dumps({"conn_type": "aws", "login": environ["AWS_ACCESS_KEY_ID"],
                  "password": environ["AWS_SECRET_ACCESS_KEY"], "extra": extra}))
PYTHON
}

form() { # SOURCE, SIZE, ... as the params of the run
  SOURCE=$1 .venv-airflow/bin/python - <<'PYTHON'
import json
from os import environ
numbers = {"size": "SIZE", "epochs": "EPOCHS", "base_channels": "BASE_CHANNELS"}
print(json.dumps({"source": environ["SOURCE"],
                  **{name: int(environ[variable]) for name, variable in numbers.items()}}))
PYTHON
}

# What the jobs say, without what Airflow writes around each line; errors in full.
jobs_lines() {
  sed -u -n -E -e '/Operator\]/ { s/^[^]]*\] //; s/ +\[airflow\.task\.operators.*//; p; b }' \
    -e '/^[A-Za-z_.]+(Error|Exception|Timeout): |^DagRun/p'
}

inside() { # beside an S3 server, whose address and keys are in AWS_*
  local source=$SOURCE log=build/dag-test.log code=0
  AIRFLOW_CONN_LUNG_S3=$(connection)
  export AIRFLOW_CONN_LUNG_S3
  if [ "$BACKEND" = docker ]; then # containers see S3 and nothing of this disk
    source=$(.venv/bin/python -m jobs incoming --source "$source" --out $out)
  fi
  echo "Setting up an Airflow database in $AIRFLOW_HOME"
  .venv-airflow/bin/airflow db migrate >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
  .venv-airflow/bin/airflow dags test lung_segmentation --conf "$(form "$source")" 2>&1 \
    | tee "$log" | jobs_lines || code=$?
  [ $code = 0 ] || echo "Airflow's whole log: $log"
  .venv-airflow/bin/python docker/dag_run_report.py "$AIRFLOW_HOME/airflow.db" $out
  return $code
}

case $BACKEND in
  process) beside=(.venv/bin/python -m jobs s3 --folder) ;;
  docker) beside=(docker/with-s3.sh) ;;
  *) echo "BACKEND is '$BACKEND': it can be process or docker" >&2; exit 2 ;;
esac
if [ "${1:-}" = --inside ]; then inside; exit; fi

unset "${!AIRFLOW@}" # no setting of another Airflow, its database least of all
mkdir -p build
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export BACKEND SOURCE=${SOURCE:-"synthetic://phantoms?films=32&seed=0"}
export SIZE=${SIZE:-64} EPOCHS=${EPOCHS:-2} BASE_CHANNELS=${BASE_CHANNELS:-8}
export AIRFLOW_HOME=$work/airflow AIRFLOW__CORE__DAGS_FOLDER=$PWD/dags
export AIRFLOW__CORE__LOAD_EXAMPLES=False LUNG_BACKEND=$BACKEND LUNG_BUCKET_URI=$out
mkdir "$AIRFLOW_HOME"
[ "$BACKEND" = docker ] || beside+=("$work/s3" --)

code=0
"${beside[@]}" docker/dag-test.sh --inside || code=$?
if [ "$BACKEND" = docker ]; then
  left=$(docker ps --all --quiet --filter label=lung.dag)
  echo "containers of jobs left: $(wc -w <<<"$left")"
  [ -z "$left" ] || code=1
fi
exit $code
