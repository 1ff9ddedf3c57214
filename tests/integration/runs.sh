#!/bin/bash
# What a node does with runs of jobs, in a real mount: the unit tests of it (node_run), with the cloud for a folder.
. "$(dirname "$0")/lib.sh"

UNIT=$(dirname "$TOOLS")/unit/test_node_run
[ -x "$UNIT" ] || skip "no $UNIT (Criterion is missing)"
need bwrap pgrep
make_work

step "up"
up
within 20 pgrep -P "$(pid_of node-1)" || fail "the node has no process that starts jobs"
group=$(printf 'umbel/%s-%x' "$(stat -c %D "$ROOT/node-1/jobs")" "$(stat -c %i "$ROOT/node-1/jobs")")
[ -n "$(find /sys/fs/cgroup -path "*/$group" -type d)" ] || fail "the node has no control group $group"

step "runs of jobs in $MNT"
UMBEL_TEST_CLOUD=$MNT UMBEL_TEST_DIR=$WORK timeout "$(slow 300)" "$UNIT" -j1 >"$WORK/unit.log" 2>&1 ||
    { cat "$WORK/unit.log" >&2; fail "the unit tests of runs, in a mount"; }
grep -E "speed|runs of|Synthesis" "$WORK/unit.log"

step "down"
down
[ -z "$(find /sys/fs/cgroup -path "*/$group" -type d)" ] || fail "the node's control group $group is left"
say ok
