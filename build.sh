#!/usr/bin/env bash
# ./build.sh          builds dist/appliance, if its sources have changed
# ./build.sh run      builds it and runs the demo in ./.appliance; Ctrl-C stops all in order
# ./build.sh test     everything it takes, then linters, types and all tests (or those named)
# ./build.sh image    dist/appliance-VERSION.img, .os and .efi: our own OS, to be written to a disk or booted in QEMU
# ./build.sh bench    the benchmarks, as a table with ratios
# ./build.sh lock     remakes packaging/requirements.lock from pyproject.toml
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")"

PYTHON=/usr/bin/python3 # of Debian: PyInstaller takes the Python it runs on along
VENV=.build/venv
TO_BUILD="python3-venv python3-dev gcc libc6-dev libzstd-dev zstd binutils patchelf"
TO_TEST="busybox-static erofs-utils qemu-system-x86 ovmf systemd clang libclang-rt-14-dev chromium supervisor s6 strace procps util-linux curl etcd-client etcd-server patroni postgresql casync openssl openssh-client openssh-server nginx caddy redis-server cron docker-registry prometheus-node-exporter softhsm2 opensc xfsprogs e2fsprogs"
TO_IMAGE="systemd-boot-efi mtools dosfstools liblz4-1 e2fsprogs e2fsck-static cryptsetup-bin fdisk zstd binutils ca-certificates sbsigntool"
TO_BENCH="golang-go golang-etcd-server-dev"

SLOW_MINUTES=25 # after that boot and soak tests are skipped, and say so: the whole stays below half an hour
OF_THE_FILE="tests/binary tests/app tests/launcher tests/clients"
LONGEST="tests/boot/test_story.py tests/boot/test_flips.py tests/boot/test_cuts.py" # begun first

# Installs the Debian packages that are missing.
need() {
    local missing=""
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    if [ "$(. /etc/os-release && echo "$ID $VERSION_ID")" != "debian 12" ] || [ "$(id -u)" != 0 ]; then
        echo "build.sh: please install, as Debian 12 names them:$missing" >&2
        exit 2
    fi
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086
    apt-get install -y -q --no-install-recommends $missing >&2 || {
        apt-get update -q >&2
        apt-get install -y -q --no-install-recommends $missing >&2
    }
}

# The virtual environment, made anew when the lock has changed.
venv() {
    local wanted
    wanted=$(sha256sum <packaging/requirements.lock)
    [ "$(cat $VENV/made-from 2>/dev/null)" != "$wanted" ] || return 0
    [ -x $VENV/bin/pip ] || $PYTHON -m venv $VENV
    $VENV/bin/pip install -q --disable-pip-version-check --require-hashes -r packaging/requirements.lock >&2
    echo "$wanted" >$VENV/made-from
}

build() {
    # shellcheck disable=SC2086
    need $TO_BUILD
    venv
    $VENV/bin/python packaging/build.py
}

demo() {
    local etc=.appliance/etc/appliance
    mkdir -p $etc/units
    [ -e $etc/appliance.toml ] || cp configs/demo.toml $etc/appliance.toml
    for unit in configs/demo/*.toml; do
        [ -e "$etc/units/${unit##*/}" ] || cp "$unit" $etc/units/
    done
    exec dist/appliance --root ./.appliance run
}

tests() {
    # shellcheck disable=SC2086
    need $TO_BUILD $TO_TEST $TO_IMAGE
    venv
    local code=0
    $VENV/bin/ruff check appliance packaging tests || code=1
    $VENV/bin/mypy || code=1
    build || code=1
    if [ $# -gt 0 ]; then
        PYTHONPATH=. $VENV/bin/python -m pytest "$@" || code=1
    else
        all_tests || code=1
    fi
    return $code
}

# What drives the built file beside the rest; whoever is through begins with the machines in QEMU, which want one core
# each. The other one's summaries come last.
all_tests() {
    local code=0 log=.build/tests-beside.log skipped="" part
    export PYTHONPATH=. TESTS_SLOW_UNTIL=$(($(date +%s) + SLOW_MINUTES * 60))
    for part in $OF_THE_FILE tests/boot; do skipped="$skipped --ignore=$part"; done
    rm -rf .build/begun && mkdir .build/begun
    # shellcheck disable=SC2086
    run_then_machines $OF_THE_FILE >$log 2>&1 &
    local beside=$!
    # shellcheck disable=SC2086
    run_then_machines tests $skipped || code=1
    wait $beside || code=1
    cat $log
    return $code
}

# Those tests; then those of the machines, file by file, that nobody has begun yet.
run_then_machines() {
    local code=0 file
    $VENV/bin/python -m pytest "$@" || code=1
    for file in $LONGEST tests/boot/test_*.py; do
        mkdir ".build/begun/${file##*/}" 2>/dev/null || continue
        $VENV/bin/python -m pytest "$file" || code=1
    done
    return $code
}

case "${1:-build}" in
build) build ;;
run) build && demo ;;
test) shift && tests "$@" ;;
image) need $TO_BUILD $TO_IMAGE && build && shift && exec $VENV/bin/python packaging/image/build.py "$@" ;;
bench) need $TO_BUILD $TO_TEST $TO_IMAGE $TO_BENCH && build && shift && exec $VENV/bin/python tests/benchmarks/run.py "$@" ;;
lock) need $TO_BUILD && venv && exec packaging/lock.sh ;;
*) sed -n '2,7s/^# //p' "$0" >&2 && exit 2 ;;
esac
