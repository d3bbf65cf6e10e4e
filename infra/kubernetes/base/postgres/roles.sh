#!/bin/sh
# Run once by the image of PostgreSQL, on an empty data folder: MLflow's role and the database that it owns.
set -eu
# psql reads the password by itself: it is on no command line, where `ps` would show it.
psql --username="${POSTGRES_USER:-postgres}" --dbname=postgres --no-psqlrc --quiet --set=ON_ERROR_STOP=1 <<'SQL'
\set password `cat "${SECRETS:-/run/secrets/postgres}/mlflow-password"`
CREATE ROLE mlflow LOGIN PASSWORD :'password';
CREATE DATABASE mlflow OWNER mlflow;
REVOKE ALL ON DATABASE mlflow FROM PUBLIC;
SQL
