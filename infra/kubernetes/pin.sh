#!/usr/bin/env bash
# Pin images by digest.
#
#     infra/kubernetes/pin.sh REGISTRY/assay:TAG              # asks the registry for the digest
#     infra/kubernetes/pin.sh REGISTRY/assay@sha256:DIGEST    # as `docker push` printed it
#     infra/kubernetes/pin.sh --check                         # is every other image's digest that of its tag?
#
# The first two write image/kustomization.yaml, which both overlays take. ASSAY_IMAGE for `assay submit` is that image.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
digest_of() { docker buildx imagetools inspect "$1" --format '{{.Manifest.Digest}}'; }

case "${1:-}" in
  --check)
    wrong=0
    while read -r name tag digest; do
      found=$(digest_of "$name:$tag")
      if [ "$found" = "$digest" ]; then
        echo "$name:$tag is $digest"
      else
        # A tag moves when its image is built again, and the old digest stays valid: a reason to look, not to fear.
        echo "$name:$tag is $found now, and base/kustomization.yaml has $digest" >&2
        wrong=1
      fi
    done < <(awk '/newName:/ {name = $2} /newTag:/ {tag = $2; gsub(/"/, "", tag)} /digest:/ {print name, tag, $2}' \
      "$here/base/kustomization.yaml")
    exit "$wrong"
    ;;
  *@sha256:*) name=${1%@*} digest=${1#*@} ;;
  */*:*) name=${1%:*} digest=$(digest_of "$1") ;;
  *)
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
last=${name##*/}
name=${name%"$last"}${last%%:*} # a tag before the digest says nothing more
if ! [[ $digest =~ ^sha256:[0-9a-f]{64}$ ]]; then
  echo "$digest is not a digest: sha256: and 64 hexadecimal digits" >&2
  exit 2
fi
target=$here/image/kustomization.yaml
cat >"$target.new" <<EOF
# This project's own image, written by infra/kubernetes/pin.sh.
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
images:
  - name: registry.invalid/assay
    newName: $name
    digest: $digest
EOF
mv "$target.new" "$target"
echo "both overlays run $name@$digest"
