#!/bin/bash
# gc: packs of which little lives are rewritten; space in the pool comes back, data stays what it was, while others
# read and flush, and when the node or the centre is killed in the middle. --full: 12 kills, else 4.
. "$(dirname "$0")/lib.sh"
make_work

kills=4
! full || kills=12
POOL=$ROOT/pool
SRC=$WORK/src

pool_bytes() { find "$POOL/packs" -type f -printf '%s\n' | awk '{ s += $1 } END { print s + 0 }'; }
pool_packs() { find "$POOL/packs" -type f | wc -l; }
value() { sed -n "s/^$1 //p" "$WORK/gc.log"; }
# Contents; times are those of two different writings.
same() { diff -r "$1" "$2" >"$WORK/diff.log" || { head -n 20 "$WORK/diff.log" >&2; fail "data differs $3"; }; }
gc() { umbel gc >"$WORK/gc.log" 2>&1 || { cat "$WORK/gc.log" >&2; fail "gc"; }; }

# fill NAME: a folder of files of all sizes, here and in the cloud, in two packs or more
fill() {
    mkdir -p "$SRC/$1"
    local n
    for n in $(seq 240); do head -c $((n * n * 5 + n)) /dev/urandom >"$SRC/$1/f$n"; done
    head -c 70000000 /dev/urandom >"$SRC/$1/big"
    cp -r "$SRC/$1" "$MNT/"
    umbel flush
}

# thin NAME: most of it goes; of the big file the middle is written anew, so that its old records die
thin() {
    local n
    for n in $(seq 240); do
        [ $((n % 4)) = 0 ] || rm "$SRC/$1/f$n" "$MNT/$1/f$n"
    done
    head -c 60000000 /dev/urandom >"$WORK/middle"
    dd if="$WORK/middle" of="$SRC/$1/big" bs=1M seek=3 conv=notrunc status=none
    dd if="$WORK/middle" of="$MNT/$1/big" bs=1M seek=3 conv=notrunc status=none
    umbel flush
}

up
umbel set gc_live_ratio 0 # the centre does nothing by itself
umbel set flush_age 3600

step "nothing to do"
gc
[ "$(value packs_rewritten)" = 0 ] || fail "something was rewritten in an empty cloud"

step "space comes back, data stays"
fill one
thin one
umbel set gc_live_ratio 60
before=$(pool_bytes)
# Its map is remembered by the node now, and the packs go from under it.
head -c 100 "$MNT/one/big" >/dev/null
gc
cat "$WORK/gc.log"
[ "$(value packs_rewritten)" -gt 0 ] || fail "no pack was rewritten"
[ "$(value records_failed)" = 0 ] || fail "records failed"
after=$(pool_bytes)
[ "$after" -lt $((before - 40000000)) ] || fail "the pool had $before bytes and has $after"
live=$(du -s --apparent-size --block-size=1 "$SRC" | cut -f1)
[ "$after" -lt $((live * 2)) ] || fail "the pool has $after bytes for $live of data"
evict_cold
same "$SRC/one" "$MNT/one" "after gc"
fsck_clean --data
gc
[ "$(value packs_rewritten)" = 0 ] || fail "the same was rewritten once more: $(cat "$WORK/gc.log")"

step "what was moved is moved again"
for n in $(seq 4 8 240); do rm "$SRC/one/f$n" "$MNT/one/f$n"; done
truncate -s 1500000 "$SRC/one/big" "$MNT/one/big"
umbel flush
gc
evict_cold
same "$SRC/one" "$MNT/one" "after the second gc"
down
up
same "$SRC/one" "$MNT/one" "after down and up"
fsck_clean --data

step "while others read and flush"
fill two
thin two
(
    for _ in 1 2 3 4 5 6; do
        echo "evict /two" >"$MNT/.umbel/ctl"
        diff -r "$SRC/two" "$MNT/two" || exit 1
    done
) >"$WORK/reader.log" 2>&1 &
reader=$!
mkdir "$MNT/busy" "$SRC/busy"
(
    for n in $(seq 25); do
        head -c 3000000 /dev/urandom | tee "$SRC/busy/$((n % 7))" >"$MNT/busy/$((n % 7))"
        echo "flush /busy" >"$MNT/.umbel/ctl"
    done
) >"$WORK/writer.log" 2>&1 &
writer=$!
gc
rewritten=$(value packs_rewritten)
gc
wait $reader || { cat "$WORK/reader.log" >&2; fail "a reader met wrong data while packs were rewritten"; }
wait $writer || { cat "$WORK/writer.log" >&2; fail "a writer failed while packs were rewritten"; }
[ "$rewritten" -gt 0 ] || fail "nothing was rewritten under load"
gc
evict_cold
for n in two busy; do same "$SRC/$n" "$MNT/$n" "after gc under load"; done
fsck_clean --data

step "killed in the middle"
victims=(node-1 control-1 "node-1 control-1")
for k in $(seq $kills); do
    fill "kill$k"
    thin "kill$k"
    umbel gc >"$WORK/gc-$k.log" 2>&1 &
    collector=$!
    sleep 0.$((RANDOM % 10))
    pids=()
    for name in ${victims[(k - 1) % 3]}; do pids+=("$(pid_of "$name")"); done
    kill -KILL "${pids[@]}"
    up
    wait $collector || true # it may say so, or not have noticed
    evict_cold
    same "$SRC/kill$k" "$MNT/kill$k" "after ${victims[(k - 1) % 3]} was killed during gc"
    fsck_clean
done
gc
gc # what was allocated by a process that is dead is garbage by now
known=$(grep -cvE '^#|^$' "$MNT/.umbel/packs") || true
[ "$(pool_packs)" -le "$known" ] || fail "the pool holds $(pool_packs) packs, the state knows $known"
live=$(du -s --apparent-size --block-size=1 "$SRC" | cut -f1)
[ "$(pool_bytes)" -lt $((live * 2)) ] || fail "the pool has $(pool_bytes) bytes for $live of data"
! grep -q condemned "$MNT/.umbel/packs" || fail "garbage is left: $(grep condemned "$MNT/.umbel/packs")"
evict_cold
same "$SRC" "$MNT" "in the end"
fsck_clean --data

step "by itself"
fill own
thin own
umbel set gc_min_age 0
before=$(pool_bytes)
shrunk() { [ "$(pool_bytes)" -lt $((before - 40000000)) ]; }
within 90 shrunk || fail "the centre has not rewritten anything by itself: $(cat "$MNT/.umbel/gc")"
evict_cold
same "$SRC/own" "$MNT/own" "after the centre's own gc"
fsck_clean --data

step "all is deleted, and the pool is empty"
rm -rf "${MNT:?}"/*
gc
only_meta() { [ "$(pool_packs)" = "$(grep -c ' meta ' "$MNT/.umbel/packs")" ]; } # copies of the state
within 30 only_meta || fail "$(pool_packs) packs are left of nothing: $(cat "$MNT/.umbel/packs")"
fsck_clean --data
say "ok"
