#!/bin/bash
# Domains come and go, vCPUs too, processors and domains move between pools, affinities and marks change: all at once, and for
# as long as it is told. A crash or a failed assertion shows on the serial line; what is checked here is that each step that must
# work does, and that nothing is left over.
. ./lib.sh
. ./settings
RANDOM=$seed
end=$((SECONDS + seconds))
cpus=$(nproc)
domains=0

# A step that others may get in the way of. How often each worked is told at the end.
declare -A did=() not=()
try() {
    local what=$1
    shift
    if "$@" >/tmp/try.log 2>&1; then did[$what]=$((${did[$what]:-0} + 1)); else not[$what]=$((${not[$what]:-0} + 1)); fi
}

pick() { shift $((RANDOM % $#)); echo "$1"; }
names() { xl list | awk 'NR > 2 { print $1 }'; }

new() {
    local name=g$domains roles=(hog hog wake:5000:0 wake:2000:0 idle idle idle)
    local lines=("vcpus=$((1 + RANDOM % 3))" 'maxvcpus=4' "cpu_weight=$(pick 64 256 512 65535 65535)" "cpu_cap=$(pick 0 0 0 30)")
    [ $((RANDOM % 3)) != 0 ] || lines+=("pool=\"$(pick Pool-0 second)\"")
    domains=$((domains + 1))
    try create guest "$name" "${roles[RANDOM % ${#roles[@]}]}" "${lines[@]}"
}

step() {
    local name=$1
    case $((RANDOM % 9)) in
    0 | 1) try affinity xl vcpu-pin "$name" all "$(pick all all 0 1 2 3 0-1 2-3 1,3)" ;;
    2 | 3) try vcpus xl vcpu-set "$name" "$(pick 1 2 3 4)" ;;
    4) try pool xl cpupool-migrate "$name" "$(pick Pool-0 second)" ;;
    5 | 6) try mark xl sched-credit -d "$name" -w "$(pick 65535 65535 65534 100)" ;;
    7) try cap xl sched-credit -d "$name" -c "$(pick 0 0 25)" ;;
    8) try pause xl pause "$name" && try unpause xl unpause "$name" ;;
    esac
}

# A processor changes pools; the second pool keeps one.
processor() {
    local cpu=$((1 + RANDOM % (cpus - 2)))
    if xl cpupool-list -c | awk '$1 == "Pool-0" { print $2 }' | grep -qw $cpu; then
        try cpu-out xl cpupool-cpu-remove Pool-0 $cpu
        try cpu-in xl cpupool-cpu-add second $cpu
    else
        try cpu-out xl cpupool-cpu-remove second $cpu
        try cpu-in xl cpupool-cpu-add Pool-0 $cpu
    fi
}

xl cpupool-cpu-remove Pool-0 $((cpus - 1)) || fail "a processor does not leave its pool"
printf 'name="second"\nsched="credit"\ncpus=["%s"]\n' $((cpus - 1)) >/tmp/second.cfg
xl cpupool-create /tmp/second.cfg || fail "a second pool was not made"
while [ $SECONDS -lt $end ] || [ $domains -lt "$least" ]; do
    [ $SECONDS -lt $((end + seconds)) ] || fail "only $domains domains were created in twice the time"
    new
    for ((n = 0; n < 4; n++)); do
        mapfile -t there < <(names)
        [ ${#there[@]} -gt 0 ] || break
        step "${there[RANDOM % ${#there[@]}]}"
    done
    [ $((RANDOM % 3)) != 0 ] || processor
    mapfile -t there < <(names)
    [ ${#there[@]} -lt 6 ] || try destroy xl destroy "$(pick "${there[@]}")"
    [ $((domains % 20)) != 0 ] || { xl debug-keys r; echo "STRESS $SECONDS s, $domains domains"; }
done
for name in $(names); do
    xl destroy "$name" || fail "domain $name cannot be destroyed at the end"
done
for what in "${!did[@]}" "${!not[@]}"; do echo "$what ${did[$what]:-0} ${not[$what]:-0}"; done | sort -u >/out/steps
while read -r line; do result "step $line"; done </out/steps
for what in create destroy affinity vcpus pool mark cpu-out cpu-in; do
    [ "${did[$what]:-0}" -gt 0 ] || fail "'$what' never worked: $(cat /tmp/try.log)"
done
[ "${did[create]}" -ge "$least" ] || fail "only ${did[create]} domains were created"
xl debug-keys r
sleep 1
[ "$(names | wc -l)" = 0 ] || fail "domains are left: $(names)"
xl dmesg | grep 'invariants:' | grep -vq 'kept' && fail "an invariant is broken"
result "passed stress: ${did[create]} domains in $SECONDS s"
