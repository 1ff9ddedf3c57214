#!/bin/bash
# Data that cannot be reached: the pool's server hangs, the only node that has a file dies. A hard mount waits and goes on
# when it is back, a soft one says EIO after its time; whoever is killed meanwhile ends in both; all else is answered.
. "$(dirname "$0")/lib.sh"
POOL=nfs
need timeout dd
make_work

SOFT=8 # seconds
HARD=$WORK/hard EASY=$WORK/soft
mkdir "$HARD" "$EASY"
soon() { timeout "$(slow 20)" "$@" || fail "'$*' waits for what it does not need"; }
cold() { echo 3 >/proc/sys/vm/drop_caches || skip "the kernel's caches cannot be dropped here"; }
gone() { ! kill -0 "$1" 2>/dev/null; }

# COMMAND... must end with EIO by itself, and not before its time.
gives_up() {
    local begun=$SECONDS status=0
    timeout -s KILL "$(slow $((SOFT * 4)))" "$@" >/dev/null 2>"$WORK/soft.log" || status=$?
    [ $status = 1 ] || fail "'$*' ended with $status: $(cat "$WORK/soft.log")"
    grep -q 'Input/output error' "$WORK/soft.log" || fail "'$*' says $(cat "$WORK/soft.log")"
    [ $((SECONDS - begun)) -ge $((SOFT - 2)) ] || fail "'$*' gave up after $((SECONDS - begun)) s"
}

# dies SIGNAL COMMAND...: it waits, and ends by that signal (which shells let background commands ignore).
dies() {
    local signal=$1 victim
    shift
    env --default-signal=INT "$@" >/dev/null 2>&1 &
    victim=$!
    sleep 2
    gone $victim && fail "'$*' does not wait"
    kill "-$signal" $victim
    within "$(slow 15)" gone $victim || fail "SIG$signal does not end '$*'"
    wait $victim 2>/dev/null || true
}

health_says() { umbel health >"$WORK/health" 2>&1 || true; grep -qE -- "$1" "$WORK/health"; }

UMBEL_MACHINE=one up
UMBEL_MACHINE=far "$UMBEL" mount --root "$ROOT" "$HARD" >/dev/null
UMBEL_MACHINE=far "$UMBEL" mount --root "$ROOT" --soft ${SOFT}s "$EASY" >/dev/null
EXTRA_MOUNTS+=("$HARD" "$EASY")
refused 2 'no time from' "$UMBEL" mount --root "$ROOT" --soft 1s "$WORK"
refused 2 'no time from' "$UMBEL" mount --root "$ROOT" --soft soon "$WORK"
umbel set flush_age 86400
for i in $(seq 8); do head -c $((1000000 + i)) /dev/urandom >"$WORK/plain-$i"; cp "$WORK/plain-$i" "$MNT/$i"; done
umbel flush
evict_cold
cp "$WORK/plain-1" "$MNT/staged" # at the node, and not in the pool

step "the server hangs"
ganesha_freeze
cat "$HARD/1" >"$WORK/hard-1" &
waiting=$!
cat "$MNT/2" >"$WORK/hard-2" & # by way of the node
waiting2=$!
gives_up cat "$EASY/3"
gives_up dd if="$EASY/4" of=/dev/null bs=64k iflag=direct
gone $waiting && fail "the hard mount does not wait for the pool"
gone $waiting2 && fail "the hard mount does not wait for its node's pool"
within 30 health_says 'mount hard: [0-9]+ requests wait, since [0-9]+ s, for .*pool' ||
    fail "health does not say what is waited for: $(cat "$WORK/health")"
soon cmp "$WORK/plain-1" "$HARD/staged"
soon cmp "$WORK/plain-1" "$EASY/staged"
soon ls -l "$HARD" "$EASY" >/dev/null
soon cp "$WORK/plain-2" "$HARD/during"
soon cmp "$WORK/plain-2" "$EASY/during"
for signal in INT KILL; do
    dies $signal cat "$HARD/5"
    dies $signal dd if="$HARD/6" of=/dev/null bs=64k iflag=direct
    dies $signal dd if="$MNT/7" of=/dev/null bs=64k iflag=direct
done
dies KILL dd if="$EASY/8" of=/dev/null bs=64k iflag=direct
gone $waiting && fail "the hard mount has given up"
ganesha_thaw
wait $waiting || fail "the hard reader failed"
wait $waiting2 || fail "the hard reader at the node failed"
cmp "$WORK/plain-1" "$WORK/hard-1"
cmp "$WORK/plain-2" "$WORK/hard-2"
for i in $(seq 8); do soon cmp "$WORK/plain-$i" "$EASY/$i"; done
within 60 umbel health >/dev/null || fail "health: $(umbel health)"

step "the only node that has it dies"
cp "$WORK/plain-3" "$MNT/alone"
cp "$WORK/plain-3" "$MNT/written"
cold
kill -KILL "$(pid_of node-1)"
cat "$HARD/alone" >"$WORK/hard-alone" &
waiting=$!
dd if="$WORK/plain-4" of="$HARD/written" conv=notrunc bs=1M 2>/dev/null &
writing=$!
gives_up cat "$EASY/alone"
gone $waiting && fail "the hard mount does not wait for the node"
gone $writing && fail "the writer does not wait for the node"
within 30 health_says 'mount hard: [0-9]+ requests wait, since [0-9]+ s, for node node-1, which is away' ||
    fail "health does not say what is waited for: $(cat "$WORK/health")"
soon cmp "$WORK/plain-5" "$HARD/5"
soon cmp "$WORK/plain-5" "$EASY/5"
soon ls -l "$HARD" >/dev/null
for signal in INT KILL; do
    dies $signal dd if="$HARD/alone" of=/dev/null bs=64k iflag=direct
    dies $signal cat "$HARD/alone"
    dies $signal dd if="$WORK/plain-6" of="$HARD/staged" conv=notrunc bs=1M
done
UMBEL_MACHINE=one up
wait $waiting || fail "the hard reader failed"
wait $writing || fail "the hard writer failed"
cmp "$WORK/plain-3" "$WORK/hard-alone"
cmp "$WORK/plain-4" "$MNT/written"
within 60 umbel health >/dev/null || fail "health: $(umbel health)"
umbel flush
fsck_clean --data
umount "$HARD" "$EASY"
say "ok"
