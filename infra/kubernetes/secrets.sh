#!/usr/bin/env bash
# Make the Secrets that the manifests name, from random bytes. Nothing is printed, nothing stays on the disk, no value
# is on a command line. A Secret that exists is left alone, and then all are: the passwords belong together.
#
#     infra/kubernetes/secrets.sh                 # in the namespace assay
#     infra/kubernetes/secrets.sh kubeflow        # and s3-assay in the namespace where steps run, too
set -euo pipefail
umask 077
namespace=assay
steps=("$namespace" "$@")
names=(postgres-server postgres-client object-store s3-admin s3-mlflow s3-assay)

for name in "${names[@]}"; do
  if kubectl --namespace "$namespace" get secret "$name" --output name >/dev/null 2>&1; then
    echo "the secret $name exists in $namespace: delete ${names[*]} to make all of them anew" >&2
    exit 2
  fi
done

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

random() { # letters and digits alone: no file format has to quote them
  LC_ALL=C tr -dc 'A-Za-z0-9' </dev/urandom | head -c "$1" || true
}
credentials() { # an AWS credentials file, and the identity that the object store knows it by
  local name=$1 actions=$2 access secret
  access=$(random 20) secret=$(random 40)
  printf '[assay]\naws_access_key_id = %s\naws_secret_access_key = %s\n' "$access" "$secret" >"s3-$name"
  printf '{"name": "%s", "credentials": [{"accessKey": "%s", "secretKey": "%s"}], "actions": [%s]}' \
    "$name" "$access" "$secret" "$actions" >"identity-$name"
}
on_bucket() { printf '"Read:%s", "Write:%s", "List:%s", "Tagging:%s"' "$1" "$1" "$1" "$1"; }

random 40 >superuser-password
random 40 >mlflow-password
printf '[mlflow]\nhost=postgres\nport=5432\ndbname=mlflow\nuser=mlflow\npassword=%s\n' "$(<mlflow-password)" \
  >pg_service.conf
credentials admin '"Admin"'
credentials mlflow "$(on_bucket mlflow)"
credentials assay "$(on_bucket assay)"
printf '{"identities": [%s,\n%s,\n%s]}\n' "$(<identity-admin)" "$(<identity-mlflow)" "$(<identity-assay)" >s3.json

create() { kubectl --namespace "$1" create secret generic "$2" "${@:3}"; }
create "$namespace" postgres-server --from-file=superuser-password --from-file=mlflow-password
create "$namespace" postgres-client --from-file=pg_service.conf
create "$namespace" object-store --from-file=s3.json
create "$namespace" s3-admin --from-file=credentials=s3-admin
create "$namespace" s3-mlflow --from-file=credentials=s3-mlflow
for place in "${steps[@]}"; do
  create "$place" s3-assay --from-file=credentials=s3-assay
done
