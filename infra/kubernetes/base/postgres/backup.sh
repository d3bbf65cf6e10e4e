#!/bin/sh
# Write a dump of the database to $BACKUPS and keep the newest $KEEP; PGSERVICEFILE says where the database is.
set -eu
umask 077
file="$BACKUPS/mlflow-$(date -u +%Y%m%dT%H%M%SZ).dump"
trap 'rm -f "$file.part"' EXIT
pg_dump --dbname=service=mlflow --format=custom --no-owner --no-privileges --file="$file.part"
pg_restore --list "$file.part" >/dev/null # a dump that cannot be read is no backup
mv "$file.part" "$file"
find "$BACKUPS" -name 'mlflow-*.dump' | sort -r | tail -n "+$((KEEP + 1))" | while read -r old; do rm -- "$old"; done
echo "wrote $(basename "$file") ($(wc -c <"$file") bytes); kept: $(find "$BACKUPS" -name 'mlflow-*.dump' | wc -l)"
