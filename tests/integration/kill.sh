#!/bin/bash
# SIGKILL of the control process, of the node, and of both, under load: applications notice
# nothing but a pause, and nothing that was acknowledged is lost. --full: 50 rounds, else 6.
. "$(dirname "$0")/lib.sh"
make_work

rounds=6
! full || rounds=50
victims=(control-1 node-1 "control-1 node-1")
load=8 # seconds of writing in each round

kill_hard() {
    local name pids=()
    for name; do pids+=("$(pid_of "$name")"); done
    kill -KILL "${pids[@]}"
}

verify() {
    "$TOOLS/crashwrite" --verify "$1" "$2" >"$WORK/verify.log" 2>&1 || { tail -n 40 "$WORK/verify.log" >&2; fail "$3"; }
}

round() {
    local n=$1 who=$2 writer status=0
    mkdir "$MNT/round-$n"
    "$TOOLS/crashwrite" --procs 3 --seconds $load --seed "$n" "$WORK/log-$n" "$MNT/round-$n" >"$WORK/write-$n.log" 2>&1 &
    writer=$!
    sleep $((1 + RANDOM % 3)).$((RANDOM % 10))
    # shellcheck disable=SC2086 # several names
    kill_hard $who
    sleep 0.$((RANDOM % 10))
    up
    wait $writer || status=$?
    [ $status = 0 ] || { tail -n 20 "$WORK/write-$n.log" >&2; fail "the writer noticed that $who was killed (status $status)"; }
    verify "$WORK/log-$n" "$MNT/round-$n" "acknowledged data is lost or wrong after $who was killed"
    fsck_clean
}

up
for n in $(seq $rounds); do
    who=${victims[(n - 1) % ${#victims[@]}]}
    step "round $n of $rounds: $who"
    round "$n" "$who"
done

step "all of it again, from the pool, and after down and up"
umbel flush
evict_cold
for n in $(seq $rounds); do verify "$WORK/log-$n" "$MNT/round-$n" "round $n differs from the pool"; done
down
up
for n in $(seq $rounds); do verify "$WORK/log-$n" "$MNT/round-$n" "round $n differs after down and up"; done
fsck_clean --data

step "the whole cloud at once, mount and all: what was acknowledged is there"
mkdir "$MNT/last"
"$TOOLS/crashwrite" --procs 3 --seconds 20 --tolerate "$WORK/log-last" "$MNT/last" >"$WORK/write-last.log" 2>&1 &
writer=$!
sleep 3
kill_hard control-1 node-1 keeper-mnt mount-mnt
sleep 1
up
kill -TERM $writer 2>/dev/null || true # it may have ended: starting takes long in a sanitized build
wait $writer || true
verify "$WORK/log-last" "$MNT/last" "acknowledged data is lost after everything was killed"
fsck_clean --data
say "ok"
