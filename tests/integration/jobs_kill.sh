#!/bin/bash
# Jobs while the centre and a node are killed and started again: none is lost, none runs twice.
. "$(dirname "$0")/lib.sh"
need bwrap
make_work

JOBS=$MNT/.umbel/jobs COUNT=30
wait_for() {
    local until=$((SECONDS + $(slow 90)))
    until "$@"; do
        [ $SECONDS -lt $until ] || fail "it never came about: $* ($(cut -d' ' -f2 "$JOBS/list" | sort | uniq -c | tr '\n' ' '))"
        sleep 0.2
    done
}
count() { [ "$(cut -d' ' -f2 "$JOBS/list" | grep -cE "^($1)$")" -ge "$2" ]; }
takes_jobs() { [ "$(grep -l '^jobs yes' "$MNT"/.umbel/nodes/*/status | wc -l)" = "$1" ]; }
submit() {
    mkdir -m 777 "$MNT/$1"
    printf 'array = %d\ncpus = 0.1\nmemory = 16M\nworkdir = /%s\ncommand = echo x >>$UMBEL_ARRAY_INDEX; sleep 4\n' \
        $COUNT "$1" >"$WORK/spec"
    cp "$WORK/spec" "$JOBS/new"
}
ran_once() {
    local n
    for ((n = 0; n < COUNT; n++)); do
        [ "$(wc -l <"$MNT/$1/$n")" = 1 ] || fail "$1: job $n ran $(wc -l <"$MNT/$1/$n") times"
    done
}

up --nodes 3
sleep 3
says '^jobs yes' cat "$MNT/.umbel/nodes/node-1/status" || skip "$(grep '^jobs' "$MNT/.umbel/nodes/node-1/status")"
wait_for takes_jobs 3

step "the centre is killed while jobs run"
submit one
wait_for count 'running|done' 5
kill -KILL "$(pid_of control-1)"
up
wait_for count done $COUNT
ran_once one

step "a node is killed while jobs run: it finds them again"
submit two
wait_for count 'running' 5
kill -KILL "$(pid_of node-1)"
sleep 1
up
wait_for count done $((COUNT * 2))
ran_once two
says 'problems 0' cat "$MNT/.umbel/fsck" || fail "fsck: $(cat "$MNT/.umbel/fsck")"
! pgrep -f "$ROOT/node-[0-9]*.*supervise" >/dev/null || fail "a supervisor is left"
say "ok"
