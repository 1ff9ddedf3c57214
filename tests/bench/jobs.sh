#!/bin/bash
# How many short jobs (/bin/true) a second, beside Slurm on the same machine in the same run: arrays on three nodes, in alternating
# order, and single jobs one after the other. No threshold: it only measures. What is measured, and with which settings, is in
# tests/README.md.
#   jobs.sh [--jobs N] [--rounds N] [--singles N] [--cpus C]
# Needs root, bubblewrap, and Debian's slurmctld, slurmd, slurm-client and munge; skips without them.
set -euo pipefail

jobs=10000 rounds=3 singles=20 cpus=0.05
while [ $# -gt 0 ]; do
    case $1 in
    --jobs) jobs=${2:?} ;;
    --rounds) rounds=${2:?} ;;
    --singles) singles=${2:?} ;;
    --cpus) cpus=${2:?} ;;
    *) printf 'jobs: unknown argument: %s\n' "$1" >&2; exit 2 ;;
    esac
    shift 2
done
here=$(cd "$(dirname "$0")" && pwd)
set --
. "$here/../integration/lib.sh"
. "$here/../integration/lib_jobs.sh"
# The three nodes share a machine, and would each take the others' jobs for strangers'. (Slurm does not look.)
idle_machine --jobs "$jobs" --rounds "$rounds" --singles "$singles" --cpus "$cpus"
need bwrap slurmctld slurmd sbatch srun munged
make_work

SLURM=$WORK/slurm
BOX=/sys/fs/cgroup/cpuacct/umbel-bench-$$ # counts the CPU of what is in it, and of all that it starts
NODES=3
machine_milli=$(($(nproc) * 1000))
slots=$(awk -v m="$machine_milli" -v c="$cpus" 'BEGIN { print int(m / 1000 / c + 0.5) }') # on each node, as Umbel has them

# --- Slurm: as a friendly administrator would set it for many short jobs
slurm_conf() {
    local port=$((20000 + RANDOM % 10000)) n
    cat <<CONF
ClusterName=bench
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$port
AuthType=auth/munge
AuthInfo=socket=$SLURM/munge.socket
SlurmUser=root
StateSaveLocation=$SLURM/state
SlurmctldPidFile=$SLURM/slurmctld.pid
SlurmctldLogFile=$SLURM/slurmctld.log
SlurmctldDebug=error
SlurmdPidFile=$SLURM/slurmd.%n.pid
SlurmdLogFile=$SLURM/slurmd.%n.log
SlurmdDebug=error
SlurmdSpoolDir=$SLURM/spool.%n
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$SLURM/ended
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SchedulerParameters=default_queue_depth=100000,sched_min_interval=100000,sched_interval=1,batch_sched_delay=1,sched_max_job_start=0,max_sched_time=4
MaxJobCount=200000
MaxArraySize=200001
MinJobAge=2
KillWait=5
MessageTimeout=60
SlurmctldTimeout=300
SlurmdTimeout=300
InactiveLimit=0
ReturnToService=2
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
    for ((n = 1; n <= NODES; n++)); do
        echo "NodeName=n$n NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$((port + n)) CPUs=$slots RealMemory=1000 State=UNKNOWN"
    done
}

boxed() { # runs it in the box
    bash -c "echo \$\$ >'$BOX/cgroup.procs' 2>/dev/null; exec \"\$@\"" - "$@"
}

# Its folder may be gone by then.
slurm_pids=()
note_slurm() { local file; for file in "$SLURM"/*.pid; do [ ! -s "$file" ] || slurm_pids+=("$(cat "$file")"); done; }
slurm_stop() {
    local pid left=1
    for pid in "${slurm_pids[@]}"; do kill "$pid" 2>/dev/null; done
    for _ in {1..50}; do
        left=0
        for pid in "${slurm_pids[@]}"; do ! kill -0 "$pid" 2>/dev/null || left=1; done
        [ $left = 1 ] || break
        sleep 0.2
    done
    rmdir "$BOX" "$BOX-umbel" 2>/dev/null
}

slurm_start() {
    local n
    mkdir -p "$SLURM/state"
    for ((n = 1; n <= NODES; n++)); do mkdir -p "$SLURM/spool.n$n"; done
    slurm_conf >"$SLURM/slurm.conf"
    head -c 1024 /dev/urandom >"$SLURM/munge.key"
    chmod 400 "$SLURM/munge.key"
    export SLURM_CONF=$SLURM/slurm.conf
    AT_END=(eval 'slurm_stop')
    boxed munged --force --key-file="$SLURM/munge.key" --socket="$SLURM/munge.socket" --pid-file="$SLURM/munged.pid" \
        --log-file="$SLURM/munged.log" --seed-file="$SLURM/munged.seed" || fail "munged does not start: $(cat "$SLURM/munged.log")"
    boxed slurmctld -c || fail "slurmctld does not start: $(cat "$SLURM/slurmctld.log")"
    note_slurm
    for ((n = 1; n <= NODES; n++)); do
        boxed slurmd -N "n$n" || fail "slurmd does not start: $(cat "$SLURM"/slurmd.*.log)"
    done
    sleep 1 # until all have written theirs
    slurm_pids=()
    note_slurm
    printf '#!/bin/true\n' >"$SLURM/job" # no shell
    chmod 755 "$SLURM/job"
    within 30 srun -n1 /bin/true || fail "Slurm runs nothing: $(tail -n 5 "$SLURM"/*.log)"
}

# --- the CPU of each, whoever else is busy
run_groups() { local s; for s in "$ROOT"/node-*; do printf '/sys/fs/cgroup/cpuacct/umbel/%x-%x/cpuacct.usage\n' $(stat -c '%d %i' "$s/jobs"); done; }
cpu_umbel() { cat "$BOX-umbel/cpuacct.usage" $(run_groups) 2>/dev/null | awk '{ s += $1 } END { printf "%.0f\n", s / 1000000 }'; }
cpu_slurm() { awk '{ printf "%.0f\n", $1 / 1000000 }' "$BOX/cpuacct.usage"; }

ms() { date +%s%3N; }

# --- one array: prints "SECONDS JOBS_PER_SECOND CPU_SECONDS_PER_1000 MEDIAN_S P99_S"
report() { # ms cpu_ms file-of-latencies
    sort -n "$3" | awk -v ms="$1" -v cpu="$2" -v jobs="$jobs" \
        '{ l[NR] = $1 } END { printf "%.2f %.1f %.2f %.2f %.2f\n", ms / 1000, jobs * 1000 / ms, cpu / jobs, l[int((NR + 1) / 2)], l[int(NR * 0.99 + 0.5)] }'
}

umbel_array() {
    local began cpu ids
    cpu=$(cpu_umbel)
    began=$(ms)
    printf 'array = %s\ncpus = %s\nmemory = 16M\ncommand = /bin/true\n' "$jobs" "$cpus" >"$WORK/spec"
    exec 9<>"$MNT/.umbel/jobs/new"
    cat "$WORK/spec" >&9
    ids=$(sed 's/^id //' <&9)
    exec 9>&-
    ended() { awk '/^umbel_jobs_ended_total\{state="done"\}/ { print $2 }' "$MNT/.umbel/metrics"; }
    while [ "$(ended)" -lt $((umbel_done + jobs)) ]; do sleep 0.5; done
    local took=$(($(ms) - began)) used=$(($(cpu_umbel) - cpu))
    umbel_done=$((umbel_done + jobs))
    umbel job ls --json >"$WORK/list.json" 2>/dev/null || true
    : >"$WORK/umbel.latency"
    local page="$MNT/.umbel/jobs/list.$((${ids%-*} - 1))" more
    [ "${ids%-*}" != 1 ] || page=$MNT/.umbel/jobs/list
    while more=$(cat "$page") && [ -n "$more" ]; do
        awk -v a="${ids%-*}" -v b="${ids#*-}" '$1 >= a && $1 <= b && $2 == "done" { print $7 - $5 }' <<<"$more" >>"$WORK/umbel.latency"
        page="$MNT/.umbel/jobs/list.$(tail -n 1 <<<"$more" | cut -d' ' -f1)"
    done
    [ "$(wc -l <"$WORK/umbel.latency")" = "$jobs" ] || fail "$(wc -l <"$WORK/umbel.latency") of $jobs jobs are done"
    report "$took" "$used" "$WORK/umbel.latency"
}

slurm_array() {
    local began cpu before id
    before=$(wc -l <"$SLURM/ended")
    cpu=$(cpu_slurm)
    began=$(ms)
    id=$(sbatch --parsable --array="0-$((jobs - 1))" --output=/dev/null --job-name=bench -n1 "$SLURM/job")
    while [ "$(wc -l <"$SLURM/ended")" -lt $((before + jobs)) ]; do sleep 0.5; done
    local took=$(($(ms) - began)) used=$(($(cpu_slurm) - cpu))
    tail -n +$((before + 1)) "$SLURM/ended" | grep -c 'JobState=COMPLETED' >"$WORK/completed" || true
    [ "$(cat "$WORK/completed")" = "$jobs" ] || fail "$(cat "$WORK/completed") of $jobs jobs of Slurm ($id) completed"
    tail -n +$((before + 1)) "$SLURM/ended" | sed -n 's/.* EndTime=\([^ ]*\) .*/\1/p' | sort | uniq -c | while read -r count at; do
        awk -v n="$count" -v s="$(($(date -d "$at" +%s) * 1000 - began))" 'BEGIN { for (k = 0; k < n; k++) print s / 1000 }'
    done >"$WORK/slurm.latency"
    report "$took" "$used" "$WORK/slurm.latency"
}

median() { sort -n | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
column() { cut -d' ' -f"$2" "$1" | median; }

# --- single jobs: from the write to the result, ms
umbel_single() {
    local began=$(ms) id
    exec 9<>"$MNT/.umbel/jobs/new"
    printf 'cpus = %s\nmemory = 16M\ncommand = /bin/true\n' "$cpus" >&9
    id=$(sed 's/^id //' <&9)
    exec 9>&-
    until grep -q '^state done' "$MNT/.umbel/jobs/$id/status"; do :; done
    echo $(($(ms) - began))
    umbel_done=$((umbel_done + 1))
}
slurm_single() {
    local began=$(ms)
    srun -n1 /bin/true
    echo $(($(ms) - began))
}

# --- the floor: what bubblewrap and the kernel alone take
floor() {
    local n=400 began
    began=$(ms)
    seq $n | xargs -P "$(nproc)" -I{} bwrap --ro-bind / / --dev /dev --proc /proc --tmpfs /tmp --unshare-pid --unshare-ipc --die-with-parent /bin/true
    awk -v n=$n -v ms=$(($(ms) - began)) 'BEGIN { printf "%.1f\n", n * 1000 / ms }'
}

# What runs that were killed have left; not those of one that goes on.
forget_killed() {
    local at pid
    for at in /sys/fs/cgroup/cpuacct/umbel-bench-*; do
        pid=${at#*/umbel-bench-}
        pid=${pid%-umbel}
        [ ! -d "$at" ] || kill -0 "$pid" 2>/dev/null || rmdir "$at" 2>/dev/null || say "in use, though its script has ended: $at"
    done
}

[ -d /sys/fs/cgroup/cpuacct ] || skip "CPU is counted by cgroup v1's cpuacct here"
forget_killed
mkdir "$BOX" "$BOX-umbel"
AT_END=(eval 'rmdir "$BOX" "$BOX-umbel" 2>/dev/null')
mkdir "$SLURM"
slurm_start
bash -c "echo \$\$ >'$BOX-umbel/cgroup.procs' && exec \"\$@\"" - "$UMBEL" up --root "$ROOT" --mount "$MNT" --nodes $NODES >"$WORK/up.log" 2>&1 ||
    { cat "$WORK/up.log" >&2; fail "umbel up"; }
umbel set nodes_max $NODES >/dev/null # none is started for those that wait
within 30 takes_jobs $NODES || skip "$(grep -h '^jobs' "$MNT/.umbel/nodes/node-1/status")"
umbel_done=0
say "$jobs jobs, $NODES nodes, $slots at a time on each; load before: $(cut -d' ' -f1-3 </proc/loadavg)"
say "floor: $(floor) bwrap /bin/true a second, $(nproc) at a time"
for ((round = 1; round <= rounds; round++)); do
    order=(umbel slurm)
    [ $((round % 2)) = 1 ] || order=(slurm umbel)
    for who in "${order[@]}"; do
        "${who}_array" >"$WORK/line"
        cat "$WORK/line" >>"$WORK/$who.arrays"
        say "round $round $who: $(awk '{ print $1 " s, " $2 " jobs/s, " $3 " CPU s per 1,000, latency median " $4 " s, 99% " $5 " s" }' "$WORK/line"); load $(cut -d' ' -f1 </proc/loadavg)"
    done
done
for who in umbel slurm; do
    for ((n = 0; n < singles; n++)); do "${who}_single" >>"$WORK/$who.singles"; done
done
say "medians:"
for who in umbel slurm; do
    say "$who: $(column "$WORK/$who.arrays" 2) jobs/s, $(column "$WORK/$who.arrays" 3) CPU s per 1,000, latency in the array median $(column "$WORK/$who.arrays" 4) s, 99% $(column "$WORK/$who.arrays" 5) s; a single job: median $(median <"$WORK/$who.singles") ms, longest $(sort -n "$WORK/$who.singles" | tail -n 1) ms"
done
awk -v u="$(column "$WORK/umbel.arrays" 2)" -v s="$(column "$WORK/slurm.arrays" 2)" 'BEGIN { printf "jobs: umbel has %.1f times the throughput\n", u / s }'
