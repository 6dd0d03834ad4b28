#!/bin/sh
# Compiles the C programs into .build/launcher: build.sh [launcher|spawn]...   (both when nothing is named)
set -eu
here=$(dirname "$(readlink -f "$0")")
out=$(dirname "$(dirname "$here")")/.build/launcher
mkdir -p "$out"
cd "$here" # relative names only: nothing of where the tree lies gets into the programs

compile() { # NAME FILES_AND_LIBRARIES...
    name=$1
    shift
    gcc -std=gnu17 -O2 -Wall -Wextra -Werror -static -s -fno-ident -Wl,--build-id=none -Wl,--gc-sections \
        -ffunction-sections -fdata-sections -o "$out/$name.$$" "$@"
    mv "$out/$name.$$" "$out/$name" # whole or not at all: two tests may build at once
}

for name in ${*:-launcher spawn}; do
    case $name in
    launcher) compile launcher main.c guard.c turn.c slots.c record.c place.c unpack.c payload.c archive.c say.c -lzstd ;;
    spawn) compile spawn spawn*.c hold.c ;;
    *) echo "build.sh: no such program: $name" >&2; exit 2 ;;
    esac
done
