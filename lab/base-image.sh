#!/usr/bin/env bash
# Make the image that `docker pull` could not fetch: base-image.sh NAME:TAG, from Debian's packages.
#
# The packages come from where this machine's apt takes Debian's, and the image keeps those sources,
# so that apt-get works in its containers wherever it works here.
set -euo pipefail

tag="$1"
suite=bookworm

say() { printf '[lab] %s\n' "$*" >&2; }

if ! command -v mmdebstrap >/dev/null; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        say "no image registry can be reached, and only root on Debian or Ubuntu can make $tag here:"
        say "install mmdebstrap, or bring the image with \`docker load\`"
        exit 1
    fi
    apt-get update
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        mmdebstrap debian-archive-keyring
fi

# This machine's own Debian entries, where it runs the same release; else mmdebstrap's default.
sources=()
for file in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
    if [ -f "$file" ] && grep -q "$suite" "$file"; then
        sources=("$file")
        break
    fi
done

# A mirror that needs a proxy or serves a frozen snapshot needs it in the containers too.
options=()
while IFS= read -r setting; do
    options+=("--aptopt=$setting")
done < <(apt-config dump | grep -E '^Acquire::(Check-Valid-Until|Check-Date|https?::Proxy) ' || true)

mmdebstrap --variant=minbase --include=ca-certificates "${options[@]}" \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    "$suite" - "${sources[@]}" | docker import - "$tag"
