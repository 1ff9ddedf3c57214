#!/bin/bash
# A pool on NFS beside libnfs' own nfs-cp, on one NFS-Ganesha, with as many bytes, in one run: MiB/s of each and the
# ratio, the median of three rounds in changing order. No threshold: it only measures.
#   nfs.sh [MEGABYTES]            (510 if nothing is said; ten times that is needed in $UMBEL_TEST_DIR)
set -euo pipefail
megabytes=${1:-510}
here=$(cd "$(dirname "$0")" && pwd)
set --
. "$here/../integration/lib.sh"
POOL=nfs
need nfs-cp
make_work
[ -x "$TOOLS/pool_copy" ] || fail "no $TOOLS/pool_copy"
head -c $((megabytes << 20)) /dev/urandom >"$WORK/source"
copy_url() { ganesha_url "$WORK/nfs/export/$1"; }

timed() { # NAME COMMAND...
    local name=$1 from to
    shift
    from=$(date +%s%N)
    "$@" >"$WORK/out" 2>&1 || { cat "$WORK/out" >&2; fail "$*"; }
    to=$(date +%s%N)
    echo $((megabytes * 1000000000 / (to - from))) >>"$WORK/$name"
}
# Each round has names of its own: what is removed behind the server's back lives on in its memory.
write_theirs() { timed write-nfs-cp nfs-cp "$WORK/source" "$(copy_url "copy-$round")"; }
write_ours() { timed "write-pool-$1" "$TOOLS/pool_copy" write "$(copy_url "pool-$1-$round")" "$megabytes" "$1"; }
read_theirs() { timed read-nfs-cp nfs-cp "$(copy_url "copy-$round")" "$WORK/back"; }
read_ours() { timed "read-pool-$1" "$TOOLS/pool_copy" read "$(copy_url "pool-$1-$round")" "$megabytes" "$1"; }

for round in 1 2 3; do
    if [ $((round % 2)) = 1 ]; then write_theirs; write_ours 1; write_ours 4; else write_ours 4; write_ours 1; write_theirs; fi
    if [ $((round % 2)) = 1 ]; then read_theirs; read_ours 1; read_ours 4; else read_ours 4; read_ours 1; read_theirs; fi
    rm -f "$WORK/back"
done
median() { sort -n "$WORK/$1" | sed -n 2p; }
for what in write read; do
    theirs=$(median $what-nfs-cp)
    printf '%-6s nfs-cp %5d MiB/s   pool, 1 thread %5d (%d.%02d times)   4 threads %5d (%d.%02d times)\n' $what "$theirs" \
        "$(median $what-pool-1)" $(($(median $what-pool-1) / theirs)) $(($(median $what-pool-1) * 100 / theirs % 100)) \
        "$(median $what-pool-4)" $(($(median $what-pool-4) / theirs)) $(($(median $what-pool-4) * 100 / theirs % 100))
done
