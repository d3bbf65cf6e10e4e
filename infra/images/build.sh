#!/usr/bin/env bash
# Build the image of every component: infra/images/build.sh [cpu|gpu]; `make images` calls it.
#
# BASE_IMAGE names another base; where the default cannot be pulled, base.sh builds one. What this machine has to
# reach its packages (pip's index, a CA bundle, a CPU build of torch) goes into the stages that build, not into
# the image.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${1:-cpu}
python=.venv/bin/python
own_base=assay-base:bookworm

fail() {
    echo "error: $1" >&2
    exit 1
}

[[ $target =~ ^(cpu|gpu)$ ]] || fail "there is no target $target: give cpu or gpu."
command -v docker >/dev/null || fail "docker is not installed: install it (Debian: apt-get install docker.io)."
docker version >/dev/null 2>&1 ||
    fail "docker does not answer: start it, and let this user reach it (for Debian: the group docker)."

# --- the base: the one given or here, the one that can be pulled, the one that can be built ---
base=${BASE_IMAGE:-$(sed -n 's/^ARG BASE_IMAGE=//p' infra/images/Dockerfile)}
if ! docker image inspect "$base" >/dev/null 2>&1; then
    if docker image inspect "$own_base" >/dev/null 2>&1 && [ -z "${BASE_IMAGE:-}" ]; then
        base=$own_base
    elif ! timeout 300 docker pull --quiet "$base" >/dev/null 2>&1; then
        [ -z "${BASE_IMAGE:-}" ] || fail "the base image $base is not here and cannot be pulled."
        echo "$base cannot be pulled; building $own_base from Debian's packages"
        infra/images/base.sh "$own_base"
        base=$own_base
    fi
fi

# --- what the building stages may use of this machine ---
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
host=$context/infra/images/host
mkdir -p "$host/wheels"
index=${UV_DEFAULT_INDEX:-${PIP_INDEX_URL:-$(python3 -m pip config get global.index-url 2>/dev/null || true)}}
bundle=${SSL_CERT_FILE:-${PIP_CERT:-$(python3 -m pip config get global.cert 2>/dev/null || true)}}
{
    [ -z "$index" ] || printf 'export UV_DEFAULT_INDEX=%q PIP_INDEX_URL=%q\n' "$index" "$index"
    [ ! -f "$bundle" ] || printf 'export SSL_CERT_FILE=/build/ca.crt PIP_CERT=/build/ca.crt\n'
} >"$host/env"
if [ -f "$bundle" ]; then cp "$bundle" "$host/ca.crt"; fi
for folder in ${PIP_FIND_LINKS:-$(python3 -m pip config get global.find-links 2>/dev/null || true)}; do
    if [ -d "$folder" ]; then
        find "$folder" -maxdepth 1 -name 'torch-*+cpu*.whl' -exec ln -sf {} "$host/wheels/" \;
    fi
done

# --- the image ---
image=$($python -c 'from assay.project import Project; print(Project.find().image)')
if [ "$target" = gpu ]; then image=$image-gpu; fi
facts=$($python -c 'from assay import __version__; from assay.project import Project; p = Project.find()
print(__version__, p.git_commit, p.source_digest)')
read -r version commit digest <<<"$facts"
lock=$(sha256sum requirements.lock | cut -c -12)
sources=(pyproject.toml requirements.lock README.md LICENSE data.dvc .dvcignore .dvc/config src pipelines components)
tar --create --dereference --sort=name --owner=0 --group=0 --exclude=__pycache__ \
    "${sources[@]}" infra/images/Dockerfile --directory "$context" infra/images/host |
    docker build --network host --target "$target" --tag "$image" --file infra/images/Dockerfile \
        --build-arg BASE_IMAGE="$base" --build-arg VERSION="$version" --build-arg GIT_COMMIT="$commit" \
        --build-arg LOCK_DIGEST="$lock" --build-arg SOURCE_DIGEST="$digest" - >"$context/log" 2>&1 ||
    { tail -n 40 "$context/log" >&2; fail "the image was not built."; }
size=$(docker image inspect --format '{{.Size}}' "$image")
echo "$image  $((size / 1000000)) MB"
