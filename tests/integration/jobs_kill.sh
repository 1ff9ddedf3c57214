#!/bin/bash
# Jobs while nodes and the centre are killed and frozen: each ends as its spec allows, no attempt begins before the one
# before it has ended, and nothing of them is left. A witness beside the cloud sees every attempt begin and end.
# --full: 20 rounds with 200 jobs, nodes frozen for a minute.
. "$(dirname "$0")/lib.sh"
. "$HERE/lib_jobs.sh"
need bwrap unshare pgrep
idle_machine "$@"
make_work

WAIT=240 # a lost node's jobs wait for the end of its lease first
WITNESS=$WORK/witness.log
NODES=3 ROUNDS=1 SHARE=10 # of the jobs, in 30ths
! full || ROUNDS=${UMBEL_TEST_ROUNDS:-20} SHARE=30
RANDOM=${UMBEL_TEST_SEED:-1}

"$TOOLS/witness" "$WITNESS" "$WORK/port" &
PIDS+=($!)
within 10 test -s "$WORK/port" || fail "no witness"
PORT=$(cat "$WORK/port")

# jobs KIND COUNT KEYS SCRIPT: so many, each seen by the witness; says their numbers
jobs() {
    local count=$(($2 * SHARE / 30))
    [ $count -gt 1 ] || count=2
    printf 'name = %s\narray = %d\ncpus = 0.02\nmemory = 32M\nworkdir = /work\n%b%%%%\n#!/bin/bash\n' "$1" $count "$3" >"$WORK/spec"
    printf 'exec 3<>/dev/tcp/127.0.0.1/%s || exit 99\n' "$PORT" >>"$WORK/spec"
    printf 'echo "$UMBEL_JOB_ID $UMBEL_JOB_ATTEMPT" >&3\n%s\n' "$4" >>"$WORK/spec"
    exec 9<>"$JOBS/new"
    cat "$WORK/spec" >&9
    sed -n 's/^id //p' <&9
    exec 9>&-
}

submit_all() {
    QUICK=$(jobs quick 40 '' 'sleep 0.$((RANDOM % 10))')
    AGAIN=$(jobs again 50 'retries = 3\n' 'sleep $((5 + RANDOM % 20))')
    LONG=$(jobs long 30 '' 'sleep $((20 + RANDOM % 20))')
    FAILS=$(jobs fails 10 'retries = 2\n' 'sleep 1; exit 7')
    STUBBORN=$(jobs stubborn 10 'retries = 2\ntime = 8\n' "trap '' TERM HUP INT; while :; do sleep 1; done")
    SESSIONS=$(jobs sessions 10 'retries = 2\n' "for n in 1 2 3; do setsid bash -c 'trap \"\" TERM HUP; sleep 600' & done; sleep 3; exit 0")
    WRITES=$(jobs writes 10 '' 'for n in 1 2 3 4 5; do echo "$n"; echo "$n" >>"$UMBEL_JOB_ID" || exit 3; sleep 1; done')
    STUCK=$(jobs stuck 10 'retries = 3\n' 'for ((n = 0; n < 40; n++)); do echo "$n"; echo "$n" >>"$UMBEL_JOB_ID" || exit 3; sleep 0.3; done')
    CANCEL=$(jobs cancel 8 'retries = 3\n' 'sleep 600')
    FIRST=$(jobs first 10 'retries = 3\n' 'sleep $((RANDOM % 5))')
    SECOND=$(jobs second 6 "retries = 3\nafter = $FIRST\n" 'sleep $((RANDOM % 8))')
    THIRD=$(jobs third 3 "retries = 3\nafter = $FIRST $SECOND\n" 'true')
    NEVER=$(jobs never 3 "retries = 3\nafter = $FAILS\n" 'true')
}
ids() { seq "${1%-*}" "${1#*-}"; }

count() { [ "$(awk -v a="$BEFORE" -v states="^($1)\$" '$1 > a && $2 ~ states' "$JOBS/list" | wc -l)" -ge "$2" ]; }
none_left() { ! awk -v a="$BEFORE" '$1 > a { print $2 }' "$JOBS/list" | grep -qE '^(pending|starting|running|ending)$'; }

tell_more() {
    local id
    cat "$WORK/judged" >&2
    for id in $(sed -n 's/^job \([0-9]*\).*/\1/p' "$WORK/judged" | sort -un | head -n 5); do
        cat "$JOBS/$id/status" >&2
        grep " $id " "$WITNESS" >&2 || true
    done
}

# Judges the round: the list of jobs, and what the witness saw. gone: nodes that were away longer than a lease.
judge() {
    awk -v a="$BEFORE" '$1 > a' "$JOBS/list" >"$WORK/list"
    awk -v gone="$1" '
        function bad(text) { print "job " id ", " kind ", " state " at " node ": " text; wrong = 1 }
        FNR == NR {
            key = $3 " " $4
            if ($2 == "begin") {
                if (key in seen) { print "job " $3 " attempt " $4 " began twice"; wrong = 1 }
                if ($3 in open) { print "job " $3 ": attempt " $4 " began before " open[$3] " had ended"; wrong = 1 }
                seen[key]; open[$3] = $4; tries[$3]++
                if (!($3 in began)) began[$3] = $1
            } else if ($2 == "end") { delete open[$3]; over[$3] = $1 }
            next
        }
        {
            id = $1; state = $2; node = $4; kind = $8; n = tries[id] + 0
            lost_ok = index(" " gone " ", " " node " ")
            all++; states[state]++
            if (id in open) bad("something of it still runs")
            if (kind ~ /^(quick|long|writes)$/) {
                if (n > 1) bad(n " attempts")
                if (state == "lost" && !lost_ok) bad("its node was never away for long")
                if (state == "failed" && kind == "writes" && gone != "") next # its files may lie at one that was away
                if (state != "lost" && state != "done") bad("it should be done")
                if (state == "done" && n != 1) bad("it was never seen")
            } else if (kind ~ /^(again|sessions|first|second|third)$/) {
                if (state != "done") bad("it should be done")
                if (n < 1 || n > 4) bad(n " attempts")
            } else if (kind == "fails") {
                if (state != "failed" && !(state == "lost" && lost_ok)) bad("it should have failed")
                if (n > 3 || (state == "failed" && gone == "" && n != 3)) bad(n " attempts of 3")
            } else if (kind == "stuck") { # in a write to a node that is frozen, some of them, when they are ended
                if (state == "failed" && gone != "") next
                if (state != "done" && !(state == "lost" && lost_ok)) bad("it should be done")
                if (n > 4) bad(n " attempts")
            } else if (kind == "stubborn") {
                if (state != "timeout" && !(state == "lost" && lost_ok)) bad("it should be out of time")
                if (n > 3) bad(n " attempts")
            } else if (kind == "cancel") {
                if (state != "cancelled") bad("it was cancelled")
            } else if (kind == "never") {
                if (state != "failed" || n != 0) bad("it waited for what failed: " n " attempts")
            } else bad("what is that?")
            if (kind == "first" && over[id] > first_over) first_over = over[id]
            if (kind == "second" && began[id] < first_over) bad("it began before the first had ended")
            if (kind == "second" && over[id] > second_over) second_over = over[id]
            if (kind == "third" && began[id] < second_over) bad("it began before the second had ended")
        }
        END {
            printf "%d jobs:", all; for (s in states) printf " %s %d", s, states[s]; print ""
            exit wrong
        }' "$WITNESS" "$WORK/list" >"$WORK/judged" || { tell_more; fail "round $ROUND (seed ${UMBEL_TEST_SEED:-1})"; }
    say "$(tail -n 1 "$WORK/judged")"
    local id
    for id in $(ids "$WRITES"); do
        [ "$(value "$id" state)" != failed ] || says '^exit 3|^detail (what it wrote could not be kept|the cloud.s mount has not taken)' cat "$JOBS/$id/status" ||
            fail "job $id failed for no reason: $(cat "$JOBS/$id/status")"
        [ "$(value "$id" state)" != done ] || [ "$(cat "$JOBS/$id/stdout" "$MNT/work/$id")" = "$(printf '%s\n' 1 2 3 4 5 1 2 3 4 5)" ] ||
            fail "job $id is done, and wrote: $(cat "$JOBS/$id/stdout" "$MNT/work/$id")"
    done
}

no_files() { [ -z "$(find "$ROOT"/node-*/files -type f)" ]; }
forget() {
    local id
    for id in $(awk '{ print $1 }' "$WORK/list"); do rmdir "$JOBS/$id"; done
    find "$MNT/work" -type f -delete
    wait_for no_files
}

# The centre first; then one node is killed and one frozen, at the same time.
round() {
    local killed=node-$((1 + RANDOM % NODES)) frozen back stays freeze gone=''
    frozen=node-$((1 + (${killed#node-} + RANDOM % (NODES - 1)) % NODES))
    # Killed and back at once: it finds everything again. Away longer than its lease: all of it runs elsewhere.
    if ! full || [ $((ROUND % 2)) = 0 ]; then back=$((42 + RANDOM % 5)) gone=$killed; else back=$((RANDOM % 3)); fi
    if full; then freeze=60 gone+=" $frozen"; else freeze=12; fi
    stays=$((freeze > back ? freeze - back : 0))
    BEFORE=$(tail -n 1 "$JOBS/list" | cut -d' ' -f1)
    BEFORE=${BEFORE:-0}
    step "round $ROUND: $killed is killed for $back s, $frozen frozen for $freeze s"
    submit_all
    wait_for count 'running|done' $((SHARE * 3))
    kill -KILL "$(pid_of control-1)"
    sleep 0.$((RANDOM % 10))
    up
    kill -STOP "$(pid_of "$frozen")"
    sleep 0.$((RANDOM % 10))
    kill -KILL "$(pid_of "$killed")"
    sleep $((RANDOM % 3))
    timeout 60 "$UMBEL" job --mount "$MNT" cancel "$CANCEL" || fail "cancel"
    if [ "$back" -gt "$freeze" ]; then
        sleep "$freeze"
        kill -CONT "$(pid_of "$frozen")"
        sleep $((back - freeze))
        up
    else
        sleep "$back"
        up
        sleep "$stays"
        kill -CONT "$(pid_of "$frozen")"
    fi
    wait_for none_left
    wait_for clean_nodes
    judge "$gone"
    says 'problems 0' cat "$MNT/.umbel/fsck" || fail "fsck: $(cat "$MNT/.umbel/fsck")"
    forget
}

up_with_jobs $NODES
mkdir -m 1777 "$MNT/work"
for ((ROUND = 1; ROUND <= ROUNDS; ROUND++)); do round; done

step "a node that is killed for good leaves no control group"
groups=$(for ((n = 1; n <= NODES; n++)); do node_groups node-$n; done)
[ -n "$groups" ] || fail "nodes have no control groups"
id=$(submit 'cpus = 0.1\nmemory = 32M\nnode = node-1\ncommand = sleep 600\n')
wait_for grep -q '^state running' "$JOBS/$id/status"
kill -KILL "$(pid_of node-1)"
down
for group in $groups; do [ ! -d "$group" ] || fail "$group is left"; done
say "ok"
