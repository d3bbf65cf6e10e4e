#!/bin/sh
# Put the database back to the dump $BACKUP in $BACKUPS (default: the newest), in one transaction: all or nothing.
set -eu
umask 077
dump="$BACKUPS/${BACKUP:-$(cd "$BACKUPS" && find . -name 'mlflow-*.dump' | sort | tail -n 1)}"
test -f "$dump" || { echo "there is no dump ${BACKUP:-} in $BACKUPS" >&2; exit 2; }
sql="$BACKUPS/.restore.sql"
trap 'rm -f "$sql"' EXIT
# Whole before anything is touched. Tables that are younger than the dump would stay: the schema goes first.
pg_restore --no-owner --no-privileges --file="$sql" "$dump"
PGOPTIONS=--client-min-messages=warning \
  psql --dbname=service=mlflow --no-psqlrc --quiet --output=/dev/null --set=ON_ERROR_STOP=1 --single-transaction \
    --command='DROP SCHEMA public CASCADE' --command='CREATE SCHEMA public' --file="$sql"
echo "restored $(basename "$dump")"
