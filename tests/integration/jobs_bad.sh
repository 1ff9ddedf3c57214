#!/bin/bash
# Jobs that mean no good: specs that are none, commands that take all they can get, users who want others' jobs. Each is
# refused or bounded, says why, and nobody else is worse off.
. "$(dirname "$0")/lib.sh"
. "$HERE/lib_jobs.sh"
need bwrap setpriv
idle_machine "$@"
make_work

WAIT=90
! full || WAIT=600 # 10 GiB through a pipe, by half a processor
PORT=17410 ALICE=1000 BOB=1001
SQUASHED=$WORK/squashed ONE=$WORK/one
mkdir "$SQUASHED" "$ONE"
EXTRA_MOUNTS+=("$SQUASHED" "$ONE")

as() {
    local uid=$1
    shift
    setpriv "--reuid=$uid" "--regid=$uid" --clear-groups "$@"
}
may_not() {
    ! "$@" >"$WORK/may_not.log" 2>&1 || fail "'$*' is allowed"
    grep -qE 'Permission denied|Operation not permitted|No such file' "$WORK/may_not.log" || fail "'$*' says $(cat "$WORK/may_not.log")"
}
submit_as() { as "$1" bash -c 'exec 9<>"$1"; printf "%b" "$2" >&9; cat <&9' - "${3:-$JOBS}/new" "$2" | sed 's/^id //'; }
specs() { as 65534 "$TOOLS/specs" "$JOBS/new" "$@"; }
alive() {
    is "$(submit 'cpus = 0.1\nmemory = 16M\ncommand = true\n')" done
    for name in control-1 node-1 node-2 mount-mnt; do
        [ ! -e "$ROOT/run/$name.pid" ] || kill -0 "$(pid_of "$name")" || fail "$name is gone"
    done
}
resident() { awk '/^VmRSS/ { print $2 }' "/proc/$1/status"; }

up_with_jobs 2 --listen "127.0.0.1:$PORT"
worker=$(cat "$ROOT"/run/mount-*.pid)
mkdir -m 1777 "$MNT/work"
umbel set job_queue_max 3000 >/dev/null

step "specs of noise"
for seed in 1 2 3; do
    specs noise $seed "$(full && echo 2000 || echo 150)" || fail "noise of seed $seed"
done
for id in $(cd "$JOBS" && ls | grep -E '^[0-9]+$'); do echo cancel >"$JOBS/$id/ctl" || true; done 2>/dev/null
alive

step "values that mean no good"
# KEY = VALUE, and what the answer names
while IFS='|' read -r line says; do
    answer=$(as 65534 bash -c 'exec 9<>"$1"; printf "cpus = 0.1\ncommand = true\n%b\n" "$2" >&9; cat <&9' - "$JOBS/new" "$line")
    [[ $answer == error\ * ]] || fail "'$line' was taken: $answer"
    grep -qE "$says" <<<"$answer" || fail "'$line' does not say /$says/: $answer"
    [ "$(wc -l <<<"$answer")" = 1 ] || fail "'$line' is answered by several lines: $answer"
done <<'END'
cpu = 1|line 3: unknown key 'cpu': did you mean 'cpus'
memroy = 1G|did you mean 'memory'
prioritee = 1|did you mean 'priority'
qwertyuiop = 1|unknown key 'qwertyuiop'
cpus = 0.2|given already in line 1
memory = 99999999999999999999|line 3: memory
memory = -1|line 3: memory
memory = 1|line 3: memory
time = 31d|line 3: time
time = 0|line 3: time
copies = 8|line 3: copies
copies = 0|line 3: copies
retries = 101|line 3: retries
priority = 1001|line 3: priority
array = 0|line 3: array
array = 5-1|line 3: array
array = 100001|line 3: array
after = 999999|there is no job 999999
after = 5-1|line 3: after
after = -1|line 3: after
env = no-equals|line 3: env
env = UMBEL_JOB_ID=1|line 3: env
node = nowhere|no node 'nowhere'
image = debian|line 3: image
workdir = ../..|line 3: workdir
workdir = relative|line 3: workdir
output = /a/../../b|line 3: output
name = \x01|control character
name = a\rb|control character
name = \x00|NUL byte
reliability = perhaps|line 3: reliability
output =|there is no value
= 5|no line 'key = value'
nothing|no line 'key = value'
%%\n|no script
END
{ for n in $(seq 10000); do echo "env = V$n=x"; done; echo 'command = true'; } >"$WORK/spec"
refused 1 'Invalid argument' cp "$WORK/spec" "$JOBS/new"
says 'line 1001: env' tail -n 1 "$MNT/.umbel/errors" || fail "10,000 variables: $(tail -n 1 "$MNT/.umbel/errors")"
! printf 'command = true\nafter = %s\n' $(($(tail -n 1 "$JOBS/list" | cut -d' ' -f1) + 1)) 2>/dev/null | dd of="$JOBS/new" status=none 2>/dev/null || fail "a job after itself was taken"
alive

step "a spec of 1 GiB, many at once, half of one"
before=$(resident "$worker") centre=$(resident "$(pid_of control-1)")
"$TOOLS/specs" "$JOBS/new" flood $((1 << 30)) || fail "1 GiB"
"$TOOLS/specs" "$JOBS/new" many 900 || fail "900 specs of 1 MiB at once"
grown=$(($(resident "$worker") - before)) centre=$(($(resident "$(pid_of control-1)") - centre))
[ -n "$SANITIZE" ] || { [ $grown -lt 300000 ] && [ $centre -lt 300000 ]; } || fail "the mount has $grown kB more, the centre $centre kB"
"$TOOLS/specs" "$JOBS/new" split || fail "half of a spec"
alive

step "one user takes all control files that he can get"
touch "$WORK/crowd.ready"
chown $ALICE "$WORK/crowd.ready"
as $ALICE "$TOOLS/specs" "$JOBS/new" crowd 1100 "$WORK/crowd.ready" "$WORK/crowd.go" >"$WORK/crowd.log" &
crowd=$!
within "$(slow 30)" test -s "$WORK/crowd.log" || fail "the crowd does not come"
says 'taken 256: Too many open files' cat "$WORK/crowd.log" || fail "$(cat "$WORK/crowd.log")"
refused 1 'Too many open files' as $ALICE cat "$MNT/.umbel/status"
as $BOB cat "$MNT/.umbel/status" >"$WORK/bob.status" || fail "bob may not look"
alive
told() { grep -q "mnt: user $ALICE has too many control files open there" "$MNT/.umbel/errors"; }
wait_for told
touch "$WORK/crowd.go"
wait $crowd || fail "the crowd: $(cat "$WORK/crowd.log")"
as $ALICE cat "$MNT/.umbel/status" >/dev/null || fail "it does not end"

step "a writer that is killed hands in nothing"
before=$(tail -n 1 "$JOBS/list" | cut -d' ' -f1)
for number in 2 9 15; do specs killed $number || fail "killed by $number"; done
[ "$(tail -n 1 "$JOBS/list" | cut -d' ' -f1)" = $((before + 6)) ] || fail "more or less than 6 jobs: $(tail -n 8 "$JOBS/list")"
told() { grep -q 'specs of user 65534 were dropped: who wrote them was killed' "$MNT/.umbel/errors"; }
wait_for told
alive

step "commands that take all they can get"
umbel set job_output_max 1M >/dev/null
umbel set job_pids_max 200 >/dev/null
sizes=64M
! full || sizes=10G
bomb=$(submit_as $BOB 'name = bomb\ncpus = 0.2\nmemory = 128M\ntime = 5\ncommand = b() { b | b & b; }; b; sleep 60\n')
disk=$(submit_as $BOB 'name = disk\ncpus = 0.2\nmemory = 64M\ntime = 60\ncommand = cat /dev/zero >/tmp/a; cat /dev/zero >/var/tmp/b; cat /dev/zero >/dev/shm/c\n')
small=$(submit_as $BOB 'name = small\ncpus = 0.2\nmemory = 64M\ntime = 60\n%%\n#!/bin/bash\nhead -c 40M /dev/zero >/tmp/a && [ $(stat -c %s /tmp/a) = 41943040 ] && ! touch /usr/x /etc/x /x /run/x 2>/dev/null\n')
loud=$(submit_as $BOB "name = loud\ncpus = 0.5\nmemory = 64M\ntime = 600\ncommand = head -c $sizes /dev/zero\n")
deaf=$(submit_as $BOB "name = deaf\ncpus = 0.1\nmemory = 32M\ntime = 2\n%%\n#!/bin/bash\ntrap '' TERM HUP INT QUIT\nwhile :; do sleep 1; done\n")
stopped=$(submit_as $BOB 'name = stopped\ncpus = 0.1\nmemory = 32M\ntime = 2\ncommand = kill -STOP $$\n')
killer=$(submit_as $BOB 'name = killer\ncpus = 0.1\nmemory = 32M\ntime = 30\n%%\n#!/bin/bash\nkill -KILL 1 2>/dev/null\nfor p in /proc/[0-9]*; do [ ${p#/proc/} = $$ ] || kill -KILL ${p#/proc/} 2>/dev/null; done\nkill -KILL $PPID 2>/dev/null\nexit 0\n')
rooted=$(submit 'name = rooted\ncpus = 0.1\nmemory = 32M\ntime = 30\n%%\n#!/bin/bash\nkill -KILL 1\nkill -STOP 1\nmount -t tmpfs x /mnt 2>/dev/null && exit 1\nmknod /tmp/d b 7 0 2>/dev/null && exit 2\nls /sys/fs/cgroup/* >/dev/null 2>&1 && exit 3\necho 1 >/proc/sys/kernel/panic 2>/dev/null && exit 4\nchroot / true 2>/dev/null && exit 5\nexit 0\n')
eraser=$(submit_as $BOB 'name = eraser\ncpus = 0.1\nmemory = 32M\ntime = 30\nworkdir = /work\n%%\n#!/bin/bash\necho before\nrm -rf $UMBEL_MOUNT/.umbel/jobs/$UMBEL_JOB_ID 2>/dev/null\nrm -f $UMBEL_MOUNT/.umbel/jobs/$UMBEL_JOB_ID/stdout 2>/dev/null\nmv $UMBEL_MOUNT/.umbel/jobs/$UMBEL_JOB_ID/stdout /tmp/ 2>/dev/null\necho after\n')
own=$(submit_as $BOB 'name = own\ncpus = 0.1\nmemory = 32M\ntime = 30\nworkdir = /work\noutput = out\n%%\n#!/bin/bash\necho one\nsleep 1\nrm out\necho two\n')
is "$disk" failed
says 'out of memory|No space' cat "$JOBS/$disk/status" "$JOBS/$disk/stderr" || fail "a full /tmp: $(cat "$JOBS/$disk/status")"
is "$small" done
is "$loud" done
[ "$(value "$loud" output_bytes)" = 1048576 ] && [ "$(stat -c %s "$JOBS/$loud/stdout")" = 1048576 ] || fail "much output: $(cat "$JOBS/$loud/status")"
[ "$(value "$loud" output_lost)" = $(($(numfmt --from=iec $sizes) - 1048576)) ] || fail "what was thrown away is not told: $(cat "$JOBS/$loud/status")"
is "$deaf" timeout
is "$stopped" timeout
is "$killer" done
is "$rooted" done
is "$eraser" done
[ "$(cat "$JOBS/$eraser/stdout")" = "before
after" ] || fail "its stdout is gone: $(ls "$JOBS/$eraser")"
wait_for ended "$own"
case $(value "$own" state) in done | failed) ;; *) fail "its output was deleted: $(cat "$JOBS/$own/status")" ;; esac
wait_for ended "$bomb"
[ "$(value "$bomb" state)" != done ] || [ "$(value "$bomb" exit)" = 0 ] || fail "the fork bomb: $(cat "$JOBS/$bomb/status")"
wait_for clean_nodes
alive

step "signals"
id=$(submit_as $ALICE 'cpus = 0.1\nmemory = 32M\nworkdir = /work\n%%\n#!/bin/bash\ntrap "echo usr1" USR1\ntrap "echo usr2; exit 5" USR2\necho up\nwhile :; do sleep 0.1; done\n')
wait_for grep -qs up "$JOBS/$id/stdout"
wait_for grep -q '^state running' "$JOBS/$id/status"
may_not as $BOB bash -c "echo 'signal 12' >'$JOBS/$id/ctl'"
for bad in 'signal 0' 'signal 65' 'signal' 'signal x' 'signal 9 9' 'cancel now' ''; do
    ! printf '%s' "$bad" 2>/dev/null | as $ALICE dd of="$JOBS/$id/ctl" status=none 2>/dev/null || [ -z "$bad" ] || fail "'$bad' was taken"
done
as $ALICE bash -c "echo 'signal 10' >'$JOBS/$id/ctl'"
wait_for grep -q usr1 "$JOBS/$id/stdout"
as $ALICE "$UMBEL" job --mount "$MNT" signal 12 "$id"
is "$id" failed
[ "$(value "$id" exit)" = 5 ] || fail "signal 12 did not reach it: $(cat "$JOBS/$id/status")"

step "other users"
id=$(submit_as $ALICE 'cpus = 0.1\nmemory = 32M\ncommand = echo secret; sleep 600\n')
wait_for grep -qs secret "$JOBS/$id/stdout"
for what in status stdout stderr spec; do may_not as $BOB cat "$JOBS/$id/$what"; done
may_not as $BOB ls "$JOBS/$id"
may_not as $BOB bash -c "echo cancel >'$JOBS/$id/ctl'"
may_not as $BOB bash -c "echo x >'$JOBS/$id/stdout'"
may_not as $BOB rmdir "$JOBS/$id"
may_not as $BOB "$UMBEL" job cancel --mount "$MNT" "$id"
! as $BOB grep -q "^$id " "$JOBS/list" || fail "bob's list has alice's job"
[[ $(submit_as $BOB "after = $id\ncommand = true\n") == *"another user's"* ]] || fail "bob waits for alice's job"
refused 1 'busy' as $ALICE rmdir "$JOBS/$id"
as $ALICE bash -c "echo cancel >'$JOBS/$id/ctl'"
is "$id" cancelled
as $ALICE rmdir "$JOBS/$id"

step "mounts of machines that are not trusted: the owner is whom they are mapped to"
join() {
    "$UMBEL" join --centre "127.0.0.1:$PORT" --token "$1" --dir "$WORK/$2.joined" >/dev/null || fail "$2 cannot join"
    "$UMBEL" mount --identity "$WORK/$2.joined" "$3" >/dev/null || fail "$2 cannot mount"
}
join "$(umbel token mount squashed)" squashed "$SQUASHED"
join "$(umbel token --squash all_squash,$ALICE:$ALICE mount one)" one "$ONE"
id=$(submit_as 0 'cpus = 0.1\nmemory = 32M\ncommand = id -u; id -g; id -G\n' "$SQUASHED/.umbel/jobs")
is "$id" done
[ "$(value "$id" user)" = 65534 ] || fail "root there is $(value "$id" user)"
[ "$(cat "$JOBS/$id/stdout")" = "65534
65534
65534" ] || fail "it ran as $(cat "$JOBS/$id/stdout")"
id=$(submit_as $BOB 'cpus = 0.1\nmemory = 32M\ncommand = id -u\n' "$SQUASHED/.umbel/jobs")
is "$id" done
[ "$(value "$id" user)" = $BOB ] || fail "bob there is $(value "$id" user)"
may_not cat "$SQUASHED/.umbel/jobs/$id/stdout" # root there is nobody
[ "$(as $BOB cat "$SQUASHED/.umbel/jobs/$id/stdout")" = $BOB ] || fail "bob cannot read his own"
for user in 0 $BOB; do
    id=$(submit_as $user 'cpus = 0.1\nmemory = 32M\ncommand = id -u\n' "$ONE/.umbel/jobs")
    is "$id" done
    [ "$(value "$id" user)" = $ALICE ] && [ "$(cat "$JOBS/$id/stdout")" = $ALICE ] || fail "$user there is $(value "$id" user)"
    [ "$(as $user cat "$ONE/.umbel/jobs/$id/stdout")" = $ALICE ] || fail "$user cannot read it there"
done
roots=$(submit 'cpus = 0.1\nmemory = 32M\ncommand = echo of root; sleep 600\n')
wait_for grep -q '^state running' "$JOBS/$roots/status"
for at in "$SQUASHED" "$ONE"; do
    for what in status stdout spec; do may_not cat "$at/.umbel/jobs/$roots/$what"; done
    may_not ls "$at/.umbel/jobs/$roots"
    may_not bash -c "echo cancel >'$at/.umbel/jobs/$roots/ctl'"
    may_not rmdir "$at/.umbel/jobs/$roots"
    ! grep -q "^$roots " "$at/.umbel/jobs/list" || fail "root's job is in the list of $at"
    [[ $(submit_as 0 "after = $roots\ncommand = true\n" "$at/.umbel/jobs") == *"another user's"* ]] || fail "$at waits for root's job"
done
echo cancel >"$JOBS/$roots/ctl"
is "$roots" cancelled
umount "$ONE"

step "a mount that dies between write and read"
last=$(tail -n 1 "$JOBS/list" | cut -d' ' -f1)
"$TOOLS/specs" "$SQUASHED/.umbel/jobs/new" half "$WORK/ready" "$WORK/go" >"$WORK/half.log" &
writer=$!
within 20 test -e "$WORK/ready" || fail "the writer does not begin"
kill -KILL "$(cat "$WORK"/squashed.joined/run/mount-*.pid)"
sleep 0.5
touch "$WORK/go"
wait $writer || fail "the writer: $(cat "$WORK/half.log")"
grep -qE '^read (Transport|Software|Input|No such dev)' "$WORK/half.log" && grep -qE '^close (Transport|Software|Input|No such dev)' "$WORK/half.log" ||
    fail "a lost spec is not told: $(cat "$WORK/half.log")"
[ "$(tail -n 1 "$JOBS/list" | cut -d' ' -f1)" = "$last" ] || fail "a spec that was told to be lost is a job"

step "a node without --jobs-mount"
kill -KILL "$(pid_of node-2)"
sleep 0.5
"$UMBEL" node --root "$ROOT" --name node-2 >"$WORK/node-2.log" 2>&1 &
says_why() { grep -q '^jobs no.*--jobs-mount' "$MNT/.umbel/nodes/node-2/status" || grep -q 'without --jobs-mount' "$MNT/.umbel/nodes/node-2/status"; }
within "$(slow 30)" says_why || fail "it does not say why: $(cat "$MNT/.umbel/nodes/node-2/status")"
says 'that node is not there, or it runs no jobs' bash -c "exec 9<>'$JOBS/new'; printf 'node = node-2\ncommand = true\n' >&9; cat <&9" || fail "a job for a node that runs none"
is "$(submit 'cpus = 0.1\nmemory = 16M\ncommand = true\n')" done
says 'problems 0' cat "$MNT/.umbel/fsck" || fail "fsck: $(cat "$MNT/.umbel/fsck")"
say ok
