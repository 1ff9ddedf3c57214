#!/bin/bash
# fsx (of xfstests) on one file of a fresh cloud, alone and with flushes and evictions at the same time. $FSX is the program.
. "$(dirname "$0")/../integration/lib.sh"
[ -n "${FSX:-}" ] || skip "FSX does not say where the program fsx is"
[ -x "$FSX" ] || skip "there is no program $FSX"
make_work

ops=20000
! full || ops=1000000
up --capacity 128M

step "$ops operations"
"$FSX" -N $ops -S 1 -q "$MNT/fsx" >"$WORK/fsx.log" 2>&1 || { tail -n 60 "$WORK/fsx.log" >&2; fail "fsx"; }

step "$ops operations with flushes and evictions"
while :; do umbel flush || true; umbel evict "$MNT" || true; sleep 0.3; done >/dev/null 2>&1 &
PIDS+=($!)
"$FSX" -N $ops -S 2 -q "$MNT/fsx2" >"$WORK/fsx.log" 2>&1 || { tail -n 60 "$WORK/fsx.log" >&2; fail "fsx while flushing"; }
kill -0 "${PIDS[@]}" || fail "flushing ended before fsx did"
kill "${PIDS[@]}" && wait "${PIDS[@]}" 2>/dev/null || true
PIDS=()
fsck_clean --data
say "ok"
