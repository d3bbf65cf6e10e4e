#!/usr/bin/env bash
# Build a base image from Debian's packages, for machines that can pull none: infra/images/base.sh TAG
# It holds Python 3.11 and nothing of this machine: its mirror, proxy and CA bundle serve the build alone.
set -euo pipefail
tag=${1:?usage: base.sh TAG}
suite=bookworm

fail() {
    echo "error: $1" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || fail "debootstrap needs root: run infra/images/base.sh $tag as root, or pull a base image."
if ! command -v debootstrap >/dev/null; then
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends debootstrap; } >/dev/null ||
        fail "debootstrap is missing and cannot be installed: install it."
fi

site() { apt-get indextargets --format '$(SITE)' "Codename: $1" 'Created-By: Packages' 2>/dev/null | head -n 1; }
mirror=${DEBIAN_MIRROR:-$(site "$suite")}
[ -n "$mirror" ] || fail "this machine's apt has no mirror of Debian $suite: set DEBIAN_MIRROR to one."
security=$(site "$suite-security")
bundle=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
eval "$(apt-config shell http_proxy Acquire::http::Proxy https_proxy Acquire::https::Proxy)"
export http_proxy=${http_proxy:-} https_proxy=${https_proxy:-}

root=$(mktemp -d)
trap 'rm -rf --one-file-system "$root"' EXIT
options=()
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -f "$keyring" ] && options+=("--keyring=$keyring")
debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv "${options[@]}" \
    "$suite" "$root/base" "$mirror" >"$root/log" 2>&1 || { tail -n 20 "$root/log" >&2; fail "debootstrap failed."; }

base=$root/base
printf 'deb %s %s main\n' "$mirror" "$suite" "$mirror" "$suite-updates" ${security:+"$security" "$suite-security"} \
    >"$base/etc/apt/sources.list"
# Security updates come over this machine's mirror, proxy and CA bundle, none of which stays.
if [ -f "$bundle" ]; then cp "$bundle" "$base/tmp/ca.crt"; fi
apt=(chroot "$base" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::https::CAInfo=/tmp/ca.crt)
"${apt[@]}" update >"$root/log" 2>&1 && "${apt[@]}" -y upgrade >>"$root/log" 2>&1 ||
    echo "warning: the base image has no security updates: the archive could not be reached" >&2
chroot "$base" apt-get clean
rm -rf "$base"/tmp/* "$base"/etc/apt/sources.list "$base"/var/lib/apt/lists/* "$base"/var/log/*.log "$base"/var/log/apt "$base"/usr/share/doc/* \
    "$base"/usr/share/man/* "$base"/usr/share/locale/* "$base"/etc/resolv.conf "$base"/etc/hostname
tar -C "$base" --numeric-owner --one-file-system -c . |
    docker import --change 'CMD ["python3"]' --change 'ENV LANG=C.UTF-8' - "$tag" >/dev/null
echo "Built the base image $tag from $suite"
