#!/bin/bash
# Jobs through .umbel/jobs, end to end: submitted, followed, cancelled, in arrays and chains, on several nodes,
# tried again, out of time; and what is refused.
. "$(dirname "$0")/lib.sh"
. "$HERE/lib_jobs.sh"
need bwrap su
make_work

WAIT=60
JOBS=$MNT/.umbel/jobs
# Of the cloud's state: nothing of jobs may contradict it.
check() { says 'problems 0' cat "$MNT/.umbel/fsck" || fail "fsck: $(cat "$MNT/.umbel/fsck")"; }

up --nodes 3
echo 3 >"$MNT/.umbel/settings/nodes_max" # demand.sh has it start more
step "nodes that run jobs"
sleep 1
if ! grep -q '^jobs yes' "$MNT/.umbel/nodes/node-1/status"; then
    wait_for grep -q '^jobs' "$MNT/.umbel/nodes/node-1/status"
    sleep 3
    grep -q '^jobs yes' "$MNT/.umbel/nodes/node-1/status" || skip "$(grep '^jobs' "$MNT/.umbel/nodes/node-1/status")"
fi
wait_for takes_jobs 3

step "a job, its output, its files"
mkdir -m 1777 "$MNT/work"
id=$(submit 'name = hello\nworkdir = /work\ncommand = echo hello; echo bad >&2; pwd >where; exit 0\n')
is "$id" done
[ "$(cat "$JOBS/$id/stdout")" = hello ] || fail "stdout: $(cat "$JOBS/$id/stdout")"
[ "$(cat "$JOBS/$id/stderr")" = bad ] || fail "stderr: $(cat "$JOBS/$id/stderr")"
[ "$(value "$id" exit)" = 0 ] || fail "exit status"
[ -s "$MNT/work/where" ] || fail "it did not work in its workdir"
grep -q '^name = hello' "$JOBS/$id/spec" || fail "spec"
printf 'command = echo copied\n' >"$WORK/spec"
cp "$WORK/spec" "$JOBS/new"
is $((id + 1)) done
check

step "specs that are refused"
printf 'cpu = 3\n' >"$WORK/spec"
refused 1 'Invalid argument' cp "$WORK/spec" "$JOBS/new"
grep -q "unknown key 'cpu': did you mean 'cpus'" "$MNT/.umbel/errors" || fail "errors does not say it"
says "^error line 1: unknown key 'cpu'" bash -c "exec 9<>'$JOBS/new'; printf 'cpu = 3\n' >&9; cat <&9" || fail "not read back"
head -c 1100000 /dev/zero | tr '\0' '#' >"$WORK/spec"
refused 1 'too large' cp "$WORK/spec" "$JOBS/new"
head -c 5000 /dev/urandom >"$WORK/spec"
! cp "$WORK/spec" "$JOBS/new" 2>/dev/null || fail "random bytes were taken"
says 'error .*wanted' bash -c "exec 9<>'$JOBS/new'; printf 'cpus = 1000\ncommand = true\n' >&9; cat <&9" || fail "a need that nothing satisfies"
says 'error .*after' bash -c "exec 9<>'$JOBS/new'; printf 'after = 4711\ncommand = true\n' >&9; cat <&9" || fail "after a job that is not there"

step "an array of 100, and what comes after"
ids=$(submit 'array = 100\ncpus = 0.1\nmemory = 16M\ncommand = echo $UMBEL_ARRAY_INDEX\n')
first=${ids%-*} last=${ids#*-}
[ $((last - first)) = 99 ] || fail "an array of 100 is $ids"
later=$(submit "after = $ids\ncommand = echo later\n")
is "$later" done
for ((n = 0; n < 100; n += 33)); do
    [ "$(cat "$JOBS/$((first + n))/stdout")" = $n ] || fail "index $n"
done
[ "$(cat "$JOBS"/list | awk -v a="$first" -v b="$last" '$1 >= a && $1 <= b && $2 == "done"' | wc -l)" = 100 ] || fail "not all are done"
bad=$(submit 'command = exit 3\n')
chained=$(submit "after = $bad\ncommand = true\n")
is "$chained" failed
says "dependency $bad" cat "$JOBS/$chained/status" || fail "why did it fail?"

step "files of an array: one each"
refused 1 'Invalid argument' cp <(printf 'array = 3\noutput = /work/out\ncommand = true\n') "$JOBS/new"
grep -q 'all 3 jobs of the array would write the same file' "$MNT/.umbel/errors" || fail "errors does not say why"
ids=$(submit 'array = 8-11\ncpus = 0.1\nmemory = 16M\nworkdir = /work\noutput = out-%3a.txt\nerror = err-%a\ncommand = echo $UMBEL_ARRAY_INDEX; echo bad >&2\n')
for ((n = ${ids%-*}; n <= ${ids#*-}; n++)); do is "$n" done; done
[ "$(cat "$MNT"/work/out-0{08,09,10,11}.txt | tr '\n' ' ')" = '8 9 10 11 ' ] || fail "outputs: $(ls "$MNT/work")"
[ "$(cat "$MNT"/work/err-{8,9,10,11} | sort -u)" = bad ] || fail "errors"

step "jobs go to where their inputs lie"
for n in 1 2 3 4 5 6; do head -c 300000 /dev/urandom >"$MNT/work/part-$n"; done
holder() { awk -v f="/work/part-$1" '$1 == f { print $2; exit }' "$MNT/.umbel/cache"; }
all_held() { for n in 1 2 3 4 5 6; do [ -n "$(holder $n)" ] || return 1; done; }
wait_for all_held
[ "$(for n in 1 2 3 4 5 6; do holder $n; done | sort -u | wc -l)" -ge 2 ] || fail "all files lie at one node"
for n in 1 2 3 4 5 6; do
    id=$(submit "cpus = 0.1\nmemory = 16M\ninput = /work/part-$n\ncommand = sha256sum\n")
    is "$id" done
    [ "$(value "$id" node)" = "$(holder $n)" ] || fail "part-$n lies at $(holder $n), its job ran at $(value "$id" node)"
    [ "$(cut -d' ' -f1 "$JOBS/$id/stdout")" = "$(sha256sum <"$MNT/work/part-$n" | cut -d' ' -f1)" ] || fail "it read something else"
done

step "tried again, out of time, cancelled"
id=$(submit 'retries = 2\nworkdir = /work\ncommand = echo x >>tries; exit 7\n')
is "$id" failed
[ "$(wc -l <"$MNT/work/tries")" = 3 ] || fail "$(wc -l <"$MNT/work/tries") tries"
id=$(submit 'time = 1\ncommand = sleep 600\n')
is "$id" timeout
id=$(submit 'command = sleep 600\n')
wait_for grep -q '^state running' "$JOBS/$id/status"
echo cancel >"$JOBS/$id/ctl"
is "$id" cancelled
! (echo dance >"$JOBS/$id/ctl") 2>/dev/null || fail "a command that is none was taken"

step "three copies on three nodes, and the odd one"
id=$(submit 'copies = 3\ncpus = 0.5\ncommand = echo same\n')
is "$id" done
[ "$(grep '^copy ' "$JOBS/$id/status" | awk '{ print $4 }' | sort -u | wc -l)" = 3 ] || fail "not three nodes: $(cat "$JOBS/$id/status")"
id=$(submit 'copies = 3\ncpus = 0.5\ncommand = test $UMBEL_JOB_COPY = 2 && echo odd || echo same\n')
is "$id" done
says '^copy 2 .* odd$' cat "$JOBS/$id/status" || fail "the odd one is not named"
[ "$(cat "$JOBS/$id/stdout")" = same ] || fail "stdout is not the winner's"
[ "$(cat "$JOBS/$id/stdout.2")" = odd ] || fail "stdout.2"
says 'error ' bash -c "exec 9<>'$JOBS/new'; printf 'copies = 4\ncommand = true\n' >&9; cat <&9" || fail "4 copies on 3 nodes"

step "other users"
id=$(submit 'command = echo secret\n')
is "$id" done
for what in status stdout spec; do
    ! su nobody -s /bin/bash -c "cat '$JOBS/$id/$what'" >/dev/null 2>&1 || fail "nobody reads $what of root's job"
done
! su nobody -s /bin/bash -c "rmdir '$JOBS/$id'" 2>/dev/null || fail "nobody takes root's job away"
mine=$(su nobody -s /bin/bash -c "exec 9<>'$JOBS/new'; printf 'workdir = /work\ncommand = id -u\n' >&9; sed 's/^id //' <&9")
is "$mine" done
[ "$(su nobody -s /bin/bash -c "cat '$JOBS/$mine/stdout'")" = "$(id -u nobody)" ] || fail "it did not run as its submitter"
[ "$(su nobody -s /bin/bash -c "wc -l <'$JOBS/list'")" = 1 ] || fail "nobody's list has others' jobs"
su nobody -s /bin/bash -c "rmdir '$JOBS/$mine'" || fail "its owner may take it away"
[ ! -e "$JOBS/$mine" ] || fail "it is still there"
check

step "the same after down and up"
"$UMBEL" down --root "$ROOT" >/dev/null
up
[ "$(cat "$JOBS/$id/stdout")" = secret ] || fail "output is lost"
is "$first" done
check

step "old jobs are forgotten, but not while somebody waits for them"
wait_for takes_jobs 3
slow=$(submit 'command = sleep 600\n')
bad=$(submit 'command = exit 3\n')
later=$(submit "after = $slow $bad\ncommand = true\n")
is "$bad" failed
umbel set job_keep_max 5 >/dev/null
few() { [ "$(awk '$2 != "running" && $2 != "pending" && $2 != "starting"' "$JOBS/list" | wc -l)" -le 5 ]; }
wait_for few
[ ! -e "$JOBS/$first" ] || fail "the oldest one is still there"
umbel set job_keep 1 >/dev/null
only_three() { [ "$(cut -d' ' -f1 <"$JOBS/list" | tr '\n' ' ')" = "$slow $bad $later " ]; }
wait_for only_three
sleep 3
only_three || fail "one that is waited for was forgotten: $(cat "$JOBS/list")"
for n in "$slow" "$later"; do echo cancel >"$JOBS/$n/ctl"; done
none() { [ -z "$(cat "$JOBS/list")" ]; }
wait_for none
[ -z "$(ls "$JOBS" | grep '^[0-9]' || true)" ] || fail "folders are left: $(ls "$JOBS")"
check
say ok
