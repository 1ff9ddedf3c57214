#!/bin/bash
# Measures a fresh cloud beside a plain folder and beside libfuse's own passthrough_ll: what a FUSE filesystem can reach on
# this machine. Prints the table of `umbel bench`, with one and with 8 processes. No threshold: it only measures.
#   compare.sh [--quick] [--json] [--processes N]
# $PASSTHROUGH_LL is that program; else it is compiled from its source, which comes with libfuse3-dev. All three folders lie
# on one filesystem ($UMBEL_TEST_DIR, else /var/tmp).
set -euo pipefail

options=() processes=8
while [ $# -gt 0 ]; do
    case $1 in
    --quick | --json) options+=("$1") ;;
    --processes) processes=${2:?--processes needs a number}; shift ;;
    *) printf 'compare: unknown argument: %s\n' "$1" >&2; exit 2 ;;
    esac
    shift
done
here=$(cd "$(dirname "$0")" && pwd)
set --
. "$here/../integration/lib.sh"
need tar
make_work

# The program in $through, or nothing.
build_passthrough() {
    local examples=/usr/share/doc/libfuse3-dev/examples source=$WORK/passthrough
    mkdir "$source"
    if [ -f "$examples/passthrough_ll.c" ]; then
        cp "$examples"/passthrough_ll.c "$examples"/passthrough_helpers.h "$source/" || return 1
    elif [ -f "$examples/passthrough_ll.c.gz" ]; then
        zcat "$examples/passthrough_ll.c.gz" >"$source/passthrough_ll.c" || return 1
        for helpers in "$examples"/passthrough_helpers.h*; do zcat -f "$helpers" >"$source/passthrough_helpers.h" || return 1; done
    else
        return 1
    fi
    # shellcheck disable=SC2046 # flags are several words
    cc -O2 -D_FILE_OFFSET_BITS=64 -I"$source" -o "$WORK/passthrough_ll" "$source/passthrough_ll.c" \
        $(pkg-config --cflags --libs fuse3) >"$WORK/cc.log" 2>&1 || { cat "$WORK/cc.log" >&2; return 1; }
    through=$WORK/passthrough_ll
}

third=() through=${PASSTHROUGH_LL:-}
mkdir "$WORK/plain" "$WORK/through"
[ -z "$through" ] || [ -x "$through" ] || fail "there is no program $through (PASSTHROUGH_LL)"
if [ -n "$through" ] || build_passthrough; then
    mkdir "$WORK/through.source"
    # It holds a descriptor for each file that the kernel remembers.
    (ulimit -n "$(ulimit -Hn)" && exec "$through" -o source="$WORK/through.source",cache=always "$WORK/through")
    EXTRA_MOUNTS+=("$WORK/through")
    third=(--third "$WORK/through")
else
    say "there is no passthrough_ll (PASSTHROUGH_LL, or libfuse3-dev, cc and pkg-config); the table leaves it out" >&2
fi
up >&2
"$UMBEL" bench "$MNT" --against "$WORK/plain" "${third[@]}" --processes "$processes" "${options[@]}"
