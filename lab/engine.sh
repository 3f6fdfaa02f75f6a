#!/usr/bin/env bash
# Make sure that a Docker Engine and a Compose answer. Quick and silent when they do.
#
#   engine.sh up      use the running engine; else start the installed one; else, as root on
#                     Debian or Ubuntu, install it first
#   engine.sh down    stop the engine that `up` started itself, and no other
set -euo pipefail

build_dir="$(cd "$(dirname "$0")" && pwd)/.build"
pid_file="$build_dir/dockerd.pid"
log_file="$build_dir/dockerd.log"
mkdir -p "$build_dir"

say() { printf '[lab] %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

engine_answers() { docker info >/dev/null 2>&1; }
compose_answers() { docker compose version >/dev/null 2>&1 || docker-compose version >/dev/null 2>&1; }

wait_for_engine() { # seconds
    local deadline=$((SECONDS + $1))
    until engine_answers; do
        ((SECONDS < deadline)) || return 1
        sleep 0.3
    done
}

can_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

apt_install() {
    say "installing $* (apt-get, log: $build_dir/apt.log)"
    {
        apt-get update && DEBIAN_FRONTEND=noninteractive \
            apt-get install -y --no-install-recommends "$@"
    } </dev/null >>"$build_dir/apt.log" 2>&1 || {
        tail -n 20 "$build_dir/apt.log" >&2
        die "apt-get could not install $*"
    }
}

install_engine() {
    can_install || die "no Docker Engine answers: install Docker (docker.io on Debian and Ubuntu,
      Docker Desktop on macOS), start it, and make sure that \`docker info\` works for this user"
    local packages=(docker.io iptables)
    # Newer releases ship the client apart from the engine.
    if ! command -v docker >/dev/null && apt-cache show docker-cli >/dev/null 2>&1; then
        packages+=(docker-cli)
    fi
    compose_answers || packages+=(docker-compose)
    apt_install "${packages[@]}"
}

start_engine() {
    if [ -d /run/systemd/system ]; then
        systemctl start docker && wait_for_engine 60 && return
        die "systemd did not start docker: see \`journalctl -u docker\`"
    fi
    say "starting dockerd (log: $log_file)"
    # A session of its own and no inherited descriptor: it outlives the terminal or CI step.
    setsid dockerd --pidfile "$pid_file" </dev/null >"$log_file" 2>&1 &
    wait_for_engine 60 || {
        tail -n 20 "$log_file" >&2
        die "dockerd did not come up within 60 s"
    }
}

up() {
    if ! engine_answers; then
        command -v dockerd >/dev/null || install_engine
        # Debian's package may have started it by itself.
        if ! wait_for_engine 2; then
            [ "$(id -u)" = 0 ] || die "the Docker Engine is not running, or not for this user:" \
                "start it (\`sudo systemctl start docker\`), and join the group docker"
            start_engine
        fi
    fi
    compose_answers && return
    can_install || die "Compose is missing: install the Docker Compose plugin (or docker-compose)"
    apt_install docker-compose
}

down() {
    [ -f "$pid_file" ] || return 0
    local pid
    pid="$(cat "$pid_file")"
    if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ]; then
        say "stopping dockerd"
        kill "$pid"
        for _ in $(seq 100); do
            [ -d "/proc/$pid" ] || break
            sleep 0.1
        done
    fi
    rm -f "$pid_file"
}

case "${1:-}" in
up | down) "$1" ;;
*) die "usage: engine.sh up|down" ;;
esac
