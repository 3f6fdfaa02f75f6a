#!/bin/sh
# Runs while the remote's image is built: interpreters of other Debian releases, /opt/python3.9 and
# /opt/python3.13, to carry an agent; they bring the C library that they need. What cannot be had (a
# release that has left the mirror) is left out, and its tests are skipped.
set -u
sources=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list 2>/dev/null)
uri=$(echo "$sources" | sed -n 's/^URIs: *//p; s/^deb \(\[[^]]*\] \)*\([^ ]*\) .*/\2/p' | head -n 1)
work=$(mktemp -d)

# fetch SUITE VERSION PACKAGE…
fetch() {
    suite=$1 version=$2 folder=/opt/python$2
    shift 2
    mkdir -p "$work/$suite/lists/partial" "$work/$suite/debs"
    signed=signed-by=/usr/share/keyrings/debian-archive-keyring.gpg
    echo "deb [$signed] $uri $suite main" >"$work/$suite/sources.list"
    set -- "libpython$version-minimal" "libpython$version-stdlib" "python$version-minimal" "$@"
    cd "$work/$suite/debs" || return 1
    apt() {
        apt-get -o "Dir::Etc::sourcelist=$work/$suite/sources.list" -o Dir::Etc::sourceparts=- \
            -o "Dir::State::lists=$work/$suite/lists" -o APT::Sandbox::User=root "$@"
    }
    apt update && apt download "$@" || return 1
    mkdir -p "$folder/root"
    for deb in *.deb; do dpkg -x "$deb" "$folder/root" || return 1; done
    libraries=$(dirname "$(find "$folder/root" -name 'libpython*' -prune -o -name 'ld-linux-*' -print | head -n 1)")
    python=$folder/root/usr/bin/python$version
    mkdir -p "$folder/bin"
    if [ "$libraries" != . ]; then
        loader=$(find "$libraries" -name 'ld-linux-*' | head -n 1)
        echo "#!/bin/sh
exec $loader --library-path $libraries --argv0 $python $python \"\$@\"" >"$folder/bin/python"
        chmod +x "$folder/bin/python"
    else
        ln -s "$python" "$folder/bin/python"
    fi
    "$folder/bin/python" -c 'import asyncio, zlib, sys; print("have", sys.version)'
}

fetch bullseye 3.9 || rm -rf /opt/python3.9
fetch trixie 3.13 libc6 libexpat1 libffi8 zlib1g || rm -rf /opt/python3.13
rm -rf "$work"
