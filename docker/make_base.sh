#!/usr/bin/env bash
# Makes a base image without any registry: Debian 12 with Python 3.11, straight from Debian's packages.
# Usage: docker/make_base.sh [IMAGE], as root. DEBIAN_MIRROR names another mirror than debootstrap's; the image names none.
set -euo pipefail
image=${1:-adabert-base:bookworm}
docker=${DOCKER:-docker}
mirror=${DEBIAN_MIRROR:-}

die() { echo "make_base: $*" >&2; exit 2; }
[ "$(id -u)" = 0 ] || die "debootstrap needs root: run it with sudo."
command -v debootstrap >/dev/null || die "debootstrap is not here: apt-get install debootstrap."
"$docker" info >/dev/null 2>&1 || die "no Docker Engine answers '$docker info': start one, or see docker/engine.sh."

work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT
root=$work/root
debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv bookworm "$root" ${mirror:+"$mirror"} >"$work/log" 2>&1 ||
    die "debootstrap failed: $(tail -n 1 "$work/log")"

# debootstrap copies the host's name and resolver, names its mirror, and leaves its downloads and logs.
rm -rf "$root"/etc/{hostname,resolv.conf} "$root"/var/cache/{apt,debconf,ldconfig}/* "$root"/var/lib/apt/lists/* "$root"/var/log/*
rm -rf "$root"/usr/share/{doc,info,lintian,man}/* "$root"/usr/share/locale/*
find "$root" -name __pycache__ -prune -exec rm -r {} +
rm -f "$root/etc/apt/sources.list"

tar -C "$root" --numeric-owner --one-file-system -c . |
    "$docker" import --change 'CMD ["bash"]' --message "Debian 12 with Python 3.11, from Debian's packages" - "$image" >/dev/null
echo "made $image, $("$docker" image inspect --format '{{.Size}}' "$image" | awk '{printf "%.2f GB", $1 / 1e9}')"
