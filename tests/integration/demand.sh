#!/bin/bash
# Nodes that come and go as jobs need them: started, idle, emptied and released with nothing left; the limit; a start
# that fails; the centre killed while one starts and while one is emptied.
. "$(dirname "$0")/lib.sh"
. "$HERE/lib_jobs.sh"
need bwrap
make_work

WAIT=60
JOBS=$MNT/.umbel/jobs EVENTS=$MNT/.umbel/events
how_it_is() { nodes | tr '\n' ' '; tail -n 5 "$EVENTS"; }
set_to() { echo "$2" >"$MNT/.umbel/settings/$1"; }
nodes() { grep -H '^state ' "$MNT"/.umbel/nodes/*/status | sed 's|.*/nodes/||; s|/status:state||'; }
in_state() { nodes | grep -q "^node-d[0-9]* $1\$"; }
newest() { nodes | sed 's/ .*//' | grep '^node-d' | sort -t d -k 3 -n | tail -n 1; }
node_state() { sed -n 's/^state //p' "$MNT/.umbel/nodes/$1/status"; }
is_state() { [ "$(node_state "$1")" = "$2" ]; }
metric() { sed -n "s/^$1 //p" "$MNT/.umbel/metrics"; }
runs_of() { pgrep -f -- "--name $1 " || true; }
# A child that it has just forked looks the same for a moment.
one_process() { [ "$(runs_of "$1" | wc -l)" = 1 ]; }
# Nothing of it may be left: no process, store, file of its own, or cache line.
nothing_left() {
    [ -z "$(runs_of "$1")" ] && [ ! -e "$ROOT/$1" ] && [ -z "$(ls "$ROOT/run" | grep "^$1\\.")" ] &&
        ! grep -q " $1 " "$MNT/.umbel/cache"
}
check() { says 'problems 0' cat "$MNT/.umbel/fsck" || fail "fsck: $(cat "$MNT/.umbel/fsck")"; }
cpus=$(nproc)
# One that takes all of a node, for so many seconds.
whole() { printf 'cpus = %d\nmemory = 16M\nworkdir = /work\ncommand = %s\n' "$cpus" "$1"; }

up
mkdir -m 1777 "$MNT/work"
wait_for grep -q '^jobs' "$MNT/.umbel/nodes/node-1/status"
for ((n = 0; n < 50; n++)); do
    ! grep -q '^jobs yes' "$MNT/.umbel/nodes/node-1/status" || break
    sleep 0.2
done
says '^jobs yes' cat "$MNT/.umbel/nodes/node-1/status" || skip "$(grep '^jobs' "$MNT/.umbel/nodes/node-1/status")"
set_to nodes_max 2
set_to node_wait 1
set_to node_idle_time 3
set_to node_start_time "$(slow 20)"

step "a job that needs a new node"
blocker=$(submit "$(whole 'until [ -e go1 ]; do sleep 0.2; done')\n")
wait_for grep -q '^state running' "$JOBS/$blocker/status"
id=$(submit "$(whole 'echo from the new node >there; until [ -e go2 ]; do sleep 0.2; done')\n")
wait_for grep -q '^state running' "$JOBS/$id/status"
new=$(value "$id" node)
[[ $new = node-d* ]] || fail "it runs at '$new'"
is_state "$new" ready || fail "$new is $(node_state "$new")"
says '^on_demand local$' cat "$MNT/.umbel/nodes/$new/status" || fail "status does not say that it is on demand"
wait_for one_process "$new"
grep -q "node-ready $new" "$EVENTS" || fail "no event of its start"

step "a job that nothing can satisfy"
beyond=$(metric umbel_requests_beyond_limits_total)
says 'error .*nodes_max is 2' bash -c "exec 9<>'$JOBS/new'; printf 'copies = 3\ncommand = true\n' >&9; cat <&9" || fail "3 copies on 2 nodes"
grep -q 'nodes_max is 2' "$MNT/.umbel/errors" || fail "errors does not say it"
printf 'copies = 3\ncommand = true\n' >"$WORK/spec"
refused 1 'temporarily unavailable' cp "$WORK/spec" "$JOBS/new"
[ "$(metric umbel_requests_beyond_limits_total)" -ge $((beyond + 2)) ] || fail "metrics do not count it"
printf 'cpus = %d\ncommand = true\n' $((cpus + 1)) >"$WORK/spec"
refused 1 'temporarily unavailable' cp "$WORK/spec" "$JOBS/new"
grep -q 'a new one would have no more' "$MNT/.umbel/errors" || fail "errors does not say that a new one would not help"
third=$(submit "$(whole true)\n")
sleep 3
[ "$(value "$third" state)" = pending ] || fail "a third node? $(nodes)"
says 'nodes_max is reached' cat "$JOBS/$third/status" || fail "its status does not say why: $(cat "$JOBS/$third/status")"

step "idle, it is emptied and let go, with what was staged there"
head -c 3000000 /dev/urandom >"$WORK/data"
touch "$MNT/work/go2"
is "$id" done
is "$third" done
# Whatever node new files go to: one of these is at the new node, or is its job's own.
for n in 1 2 3 4 5 6; do cp "$WORK/data" "$MNT/work/data$n"; done
wait_for is_state "$new" gone
wait_for nothing_left "$new"
grep -q "node-released $new" "$EVENTS" || fail "no event of its release"
for n in 1 2 3 4 5 6; do cmp "$WORK/data" "$MNT/work/data$n" || fail "data$n"; done
[ "$(cat "$MNT/work/there")" = 'from the new node' ] || fail "what the job wrote"
[ "$(metric 'umbel_demand_nodes_total{what="released"}')" = 1 ] || fail "metrics do not count the release"
is_state node-1 ready || fail "node-1 was not started on demand, but is $(node_state node-1)"
check

step "down and up while there is one"
set_to node_idle_time 3600
id=$(submit "$(whole 'echo again >there; exit 0')\n")
is "$id" done
new=$(value "$id" node)
[[ $new = node-d* ]] || fail "it ran at '$new'"
echo drain >"$MNT/.umbel/nodes/node-1/ctl" # so that new files lie there
cp "$WORK/data" "$MNT/work/staged"
wait_for grep -q " $new staged " "$MNT/.umbel/cache"
"$UMBEL" down --root "$ROOT" >>"$WORK/up.log" 2>&1 || fail "down"
[ -z "$(runs_of "$new")" ] || fail "down left $new"
up
cmp "$WORK/data" "$MNT/work/staged" || fail "what was staged at $new"
wait_for is_state "$new" ready
wait_for one_process "$new"

step "the centre is killed while it empties one"
set_to node_idle_time 1
for ((n = 0; n < 600; n++)); do
    case $(node_state "$new") in draining | drained) break ;; esac
    sleep 0.02
done
kill -KILL "$(pid_of control-1)"
up
wait_for is_state "$new" gone
wait_for nothing_left "$new"
cmp "$WORK/data" "$MNT/work/staged" || fail "what was staged at $new is not there any more"
check

step "the centre is killed while one starts"
set_to node_idle_time 3600
blocker=$(submit "$(whole 'until [ -e go3 ]; do sleep 0.2; done')\n")
wait_for grep -q '^state running' "$JOBS/$blocker/status"
id=$(submit "$(whole true)\n")
for ((n = 0; n < 1000; n++)); do
    ! in_state 'starting\|pending' || break
    sleep 0.02
done
new=$(newest)
kill -KILL "$(pid_of control-1)"
up
is "$id" done
[ "$(value "$id" node)" = "$new" ] || fail "$id ran at $(value "$id" node), not at $new: $(nodes)"
[ "$(nodes | grep -c '^node-d.* ready')" = 1 ] || fail "one too many: $(nodes)"
wait_for one_process "$new"
echo release >"$MNT/.umbel/nodes/$new/ctl"
wait_for nothing_left "$new"

step "what a node may take on its disk, changed meanwhile"
up --capacity 64M # of those that are started from now on, too
wait_for is_state node-1 ready
wait_for grep -q '^jobs yes' "$MNT/.umbel/nodes/node-1/status"
id=$(submit 'copies = 2\ncpus = 0.1\nmemory = 16M\ncommand = true\n')
is "$id" done
new=$(newest)
says '^capacity 67108864$' cat "$MNT/.umbel/nodes/$new/status" || fail "$new has another capacity: $(grep capacity "$MNT/.umbel/nodes/$new/status")"

step "one that stays at its space limit is emptied and let go, with what was staged there"
set_to node_idle_time 3600
echo drain >"$MNT/.umbel/nodes/node-1/ctl" # so that new files lie there
for n in 1 2 3 4 5 6; do cp "$WORK/data" "$MNT/work/full$n"; done
wait_for grep -q " $new staged " "$MNT/.umbel/cache"
# Below what a store of 64M always has on its disk: nothing that it evicts helps.
set_to low_water 1
set_to high_water 1
sleep 2
is_state "$new" ready || fail "$new is $(node_state "$new") before node_full_time is over"
set_to node_full_time 2
wait_for is_state "$new" gone
wait_for nothing_left "$new"
grep -q "node-full $new has been above high_water" "$EVENTS" && grep -q "node-full $new stays above high_water: it is emptied" "$EVENTS" || fail "events do not say why"
grep -q "node-released $new" "$EVENTS" || fail "no event of its release"
for n in 1 2 3 4 5 6; do cmp "$WORK/data" "$MNT/work/full$n" || fail "full$n"; done
is_state node-1 drained || fail "node-1 was not started on demand, but is $(node_state node-1)"
set_to high_water 90
set_to low_water 70
set_to node_full_time 300
check

step "nodes whose start fails: one that ends, and one that is never heard"
"$UMBEL" down --root "$ROOT" >>"$WORK/up.log" 2>&1 || fail "down"
cat >"$WORK/program" <<'X'
#!/bin/sh
[ ! -e "${0%/*}/hangs" ] || exec sleep 1000
echo "error: this is no node" >&3
exit 1
X
chmod +x "$WORK/program"
export UMBEL_TEST_NODE_PROGRAM=$WORK/program
up
wait_for grep -q '^jobs yes' "$MNT/.umbel/nodes/node-1/status"
set_to nodes_max 3
failed=$(metric 'umbel_demand_nodes_total{what="failed"}')
id=$(submit 'copies = 2\ncommand = true\n')
is "$id" failed
new=$(newest)
says '^reason .*this is no node' cat "$JOBS/$id/status" || fail "its status does not say why: $(cat "$JOBS/$id/status")"
[ "$(metric 'umbel_demand_nodes_total{what="failed"}')" = $((failed + 3)) ] || fail "not three starts: $(metric 'umbel_demand_nodes_total{what="failed"}') after $failed; $(tail -n 20 "$EVENTS")"
[ "$(grep -c "node-start-failed $new.*this is no node" "$EVENTS")" = 3 ] || fail "events do not say it: $(tail "$EVENTS")"
is_state "$new" gone || fail "$new is $(node_state "$new")"
nothing_left "$new" || fail "something is left of $new"
says 'problem node .*could not be started' cat "$MNT/.umbel/health" || fail "health does not say it"
printf 'copies = 2\ncommand = true\n' >"$WORK/spec"
refused 1 'temporarily unavailable' cp "$WORK/spec" "$JOBS/new" # for a while none is tried
touch "$WORK/hangs"
kill -KILL "$(pid_of control-1)" # the next centre has not heard of that
up
set_to node_start_time 2
taken() { id=$(submit 'copies = 2\ncommand = true\n' 2>"$WORK/refusal"); } # nobody has said yet what a new node could have
within "$(slow 20)" taken || fail "$(cat "$WORK/refusal")"
wait_for grep -q 'node-start-failed .*start 1 of 3: it was not heard within 2 s' "$EVENTS"
says '^copy [12] node - state pending' cat "$JOBS/$id/status" || fail "it does not wait: $(cat "$JOBS/$id/status")"
! says 'problem jobs' cat "$MNT/.umbel/health" || fail "a job for which a node is on its way is a problem: $(cat "$MNT/.umbel/health")"
set_to node_start_time "$(slow 20)"
unset UMBEL_TEST_NODE_PROGRAM
new=$(newest)
kill -KILL "$(pid_of control-1)" # between two tries: the next centre goes on, with what works now
up
is "$id" done
[ -z "$(pgrep -f "$WORK/program" || true)" ] || fail "a process is left"
grep -q "^copy .* $new " "$JOBS/$id/status" || fail "it did not run at $new: $(cat "$JOBS/$id/status")"
check
"$UMBEL" down --root "$ROOT" >>"$WORK/up.log" 2>&1 || fail "down"
[ -z "$(pgrep -f -- "--root $ROOT " || true)" ] || fail "processes are left: $(pgrep -af -- "--root $ROOT ")"
say ok
