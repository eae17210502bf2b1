#!/usr/bin/env bash
# Builds images of the committed code and prints their sizes. Usage: docker/build.sh cpu|cuda|mlflow ...
# The host's own pip fetches the locked packages; the build itself has no network, so no setting, certificate or
# credential of the host can get into an image. BASE_IMAGE, DOCKER and PYTHON choose other ones.
set -euo pipefail
cd "$(dirname "$0")/.."
docker=${DOCKER:-docker}
base=${BASE_IMAGE:-python:3.11-slim-bookworm}
python=${PYTHON:-python3.11}

die() { echo "images: $*" >&2; exit 2; }

check() {
    "$docker" info >/dev/null 2>&1 || die "no Docker Engine answers '$docker info': start one, or see docker/engine.sh."
    local client
    client=$("$docker" version --format '{{.Client.Version}}')
    [ "${client%%.*}" -lt 23 ] || "$docker" buildx version >/dev/null 2>&1 ||
        die "$docker $client builds with its buildx plugin, which is not here: install docker-buildx, or name another with DOCKER=."
    "$docker" image inspect "$base" >/dev/null 2>&1 || "$docker" pull --quiet "$base" >/dev/null 2>&1 ||
        die "the base image $base is not here and cannot be pulled: name another with BASE_IMAGE=, or 'make base' makes one, adabert-base:bookworm."
    "$python" -c 'import platform, sys; sys.exit((sys.version_info[:2], platform.system(), platform.machine()) != ((3, 11), "Linux", "x86_64"))' ||
        die "$python is not Python 3.11 on Linux x86_64, as in the images: name one with PYTHON=."
    # The tag says which commit is inside, and caches believe it.
    [ -z "$(git status --porcelain -- $(sed -n 's/^!//p' .dockerignore) docker/Dockerfile)" ] ||
        die "what goes into the images differs from the last commit, whose name they would bear: commit first."
}

# Fetches TARGET's packages once per lock into docker/wheels/TARGET; those that are published as source only become wheels here.
fetch() {
    local target=$1 wheels=docker/wheels/$1 locked list stamp extra=()
    locked=$(mktemp -d)
    "$python" docker/requirements.py . "$locked"
    list=$locked/tasks.txt
    [ "$target" != mlflow ] || list=$locked/mlflow.txt
    stamp=$wheels/.$(cat "$locked/constraints.txt" "$list" | sha256sum | cut -c 1-16)
    if [ ! -f "$stamp" ]; then
        echo "fetching the packages of $target with pip"
        find "$wheels" -mindepth 1 ! -name .gitkeep -delete
        if [ "$target" = cpu ]; then # torch's CPU build has a version of its own, and PyPI does not carry it
            sed -i 's/^torch==.*/&+cpu/' "$locked"/*.txt
            "$python" -m pip download --quiet --no-deps --dest "$wheels" -r "$locked/torch.txt" >/dev/null 2>&1 ||
                extra=(--extra-index-url https://download.pytorch.org/whl/cpu)
        elif [ "$target" = cuda ]; then # === takes PyPI's CUDA build even where pip also knows a place with CPU builds
            sed -i 's/^torch==\(.*\)/torch===\1/' "$locked"/*.txt
        fi
        "$python" -m pip wheel -qq --find-links "$wheels" --find-links docker/wheels/cpu --wheel-dir "$wheels" "${extra[@]}" \
            -c "$locked/constraints.txt" -r "$list" || die "pip could not fetch the packages of $target; what it said is above."
        touch "$stamp"
    fi
    rm -r "$locked"
}

build() {
    local target=$1 version sha name
    version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' adabert_core/__init__.py)
    sha=$(git rev-parse --short HEAD)
    case $target in
        cpu) name=adabert-python:$version-$sha ;;
        cuda) name=adabert-python:$version-$sha-cuda ;;
        mlflow) name=adabert-mlflow:$version-$sha ;;
        *) die "no target $target: there are cpu, cuda and mlflow." ;;
    esac
    fetch "$target"
    echo "building $name"
    DOCKER_BUILDKIT=1 "$docker" build --quiet --network none --file docker/Dockerfile --target "$target" --tag "$name" \
        --build-arg "BASE_IMAGE=$base" --build-arg PIP_NO_INDEX=1 --build-arg "ADABERT_GIT_SHA=$sha" . >/dev/null
    "$docker" image inspect --format '{{.Size}}' "$name" | awk -v name="$name" '{printf "%-40s %.2f GB\n", name, $1 / 1e9}'
}

check
for target in "$@"; do build "$target"; done
