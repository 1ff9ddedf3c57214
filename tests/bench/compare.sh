#!/bin/bash
# Measures a fresh cloud beside a plain folder and beside libfuse's own passthrough_ll, whose source comes with
# libfuse3-dev: what a FUSE filesystem can reach on this machine. Prints the table of `umbel bench`.
#   compare.sh [--quick] [--json] [--processes N]
set -euo pipefail

options=()
while [ $# -gt 0 ]; do
    case $1 in
    --quick | --json) options+=("$1") ;;
    --processes) options+=("$1" "${2:?--processes needs a number}"); shift ;;
    *) printf 'compare: unknown argument: %s\n' "$1" >&2; exit 2 ;;
    esac
    shift
done
here=$(cd "$(dirname "$0")" && pwd)
set --
. "$here/../integration/lib.sh"
need cc pkg-config
make_work

build_passthrough() {
    local examples=/usr/share/doc/libfuse3-dev/examples
    [ -f "$examples/passthrough_ll.c" ] || return 1
    # shellcheck disable=SC2046 # flags are several words
    cc -O2 -D_FILE_OFFSET_BITS=64 -I"$examples" -o "$WORK/passthrough_ll" "$examples/passthrough_ll.c" $(pkg-config --cflags --libs fuse3) >"$WORK/cc.log" 2>&1
}

third=()
mkdir "$WORK/plain" "$WORK/through"
if build_passthrough; then
    mkdir "$WORK/through.source"
    "$WORK/passthrough_ll" -o source="$WORK/through.source",cache=always "$WORK/through"
    EXTRA_MOUNTS+=("$WORK/through")
    third=(--third "$WORK/through")
else
    say "passthrough_ll cannot be built here; the table leaves it out" >&2
fi
up >&2
"$UMBEL" bench "$MNT" --against "$WORK/plain" "${third[@]}" "${options[@]}"
