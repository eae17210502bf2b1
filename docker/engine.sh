#!/usr/bin/env bash
# A Docker Engine where there is none: on Debian, as root, for CI and for trying out. Usage: docker/engine.sh up|down
# An engine that answers already is left alone, by both. DOCKER_STATE is the folder of its pid, log and data.
set -euo pipefail
state=${DOCKER_STATE:-/var/lib/adabert-docker}

die() { echo "engine: $*" >&2; exit 2; }

# The engine's process number, while that process is still the one that was started.
running() {
    [ -f "$state/pid" ] || return 1
    local pid born
    read -r pid born <"$state/pid"
    [ "$(cut -d ' ' -f 22 "/proc/$pid/stat" 2>/dev/null)" = "$born" ] && echo "$pid"
}

up() {
    if docker info >/dev/null 2>&1; then
        echo "engine: one answers already"
        return
    fi
    [ "$(id -u)" = 0 ] || die "no Docker Engine answers and only root can start one: start it, or run this with sudo."
    if ! [ -x /usr/sbin/dockerd ] || ! command -v debootstrap >/dev/null; then
        command -v apt-get >/dev/null || die "install Docker Engine and debootstrap: this is not a Debian."
        apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends docker.io debootstrap >/dev/null
    fi
    mkdir -p "$state"
    setsid /usr/sbin/dockerd --data-root "$state/data" --pidfile "$state/dockerd.pid" >"$state/log" 2>&1 </dev/null &
    echo "$! $(cut -d ' ' -f 22 "/proc/$!/stat")" >"$state/pid"
    for _ in $(seq 60); do
        if docker info >/dev/null 2>&1; then
            echo "engine: started, process $!"
            return
        fi
        running >/dev/null || break
        sleep 1
    done
    die "dockerd did not come up: $(tail -n 1 "$state/log")"
}

down() {
    local pid
    if pid=$(running); then
        kill "$pid"
        tail --pid="$pid" -f /dev/null
        echo "engine: stopped"
    fi
    rm -f "$state/pid"
}

case ${1:-} in
    up) up ;;
    down) down ;;
    *) die "usage: docker/engine.sh up|down" ;;
esac
