#!/usr/bin/env bash
# Starts PostgreSQL in the image of docker/postgres.Dockerfile. Reads the official image's variables, so
# that Compose can use either image: POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB, PGDATA.
set -euo pipefail

if [ ! -e "$PGDATA/PG_VERSION" ]; then
  echo "Creating the database $POSTGRES_DB"
  # Renamed once it is complete: after a kill the next start begins again.
  new=$PGDATA.new
  rm -rf "$new"
  initdb --pgdata "$new" --username "$POSTGRES_USER" --pwfile <(printf '%s\n' "$POSTGRES_PASSWORD") \
    --auth scram-sha-256 --encoding UTF8 --locale C.UTF-8
  echo "host all all all scram-sha-256" >>"$new/pg_hba.conf"
  echo "CREATE DATABASE $POSTGRES_DB" | postgres --single -D "$new" postgres
  mv "$new" "$PGDATA"
fi
exec postgres -D "$PGDATA" -c "listen_addresses=*" "$@"
