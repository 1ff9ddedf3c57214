#!/bin/bash
# R_B_Credit beside Credit and R_Credit in the simulator (hv/sched/sim): 1-8 real-time guests among hogs on 2-16 processors.
# Prints hv/sched/README.md's table (credit / r_credit / r_b_credit) and draws its picture. Exact: the same on every machine,
# however busy. No threshold here.
#   sched.sh [--runs N] [--time D] [--processors "2 4"] [--guests "1 2"] [--add LINE] [--svg FILE] [--tsv]
# --add: one more line for every scenario, as "rt_steal" or "switch 5us". --svg: the picture, of 4 processors and 4 guests.
# --tsv: a line for each row and policy, with all figures in ns, for programs: processors guests policy mean median 99% longest
# late jobs rt ordinary switching moves met weight_error ordinary-without-them.
set -euo pipefail

runs=30 time=10s processors="2 4 8 16" guests="1 2 4 8" add= svg= tsv=
while [ $# -gt 0 ]; do
    case $1 in
    --runs) runs=${2:?--runs needs a number}; shift ;;
    --time) time=${2:?--time needs a duration}; shift ;;
    --processors) processors=${2:?--processors needs numbers}; shift ;;
    --guests) guests=${2:?--guests needs numbers}; shift ;;
    --add) add=${2:?--add needs a line}; shift ;;
    --svg) svg=${2:?--svg needs a file}; shift ;;
    --tsv) tsv=yes ;;
    *) printf 'sched: unknown argument: %s\n' "$1" >&2; exit 2 ;;
    esac
    shift
done
here=$(cd "$(dirname "$0")" && pwd)
umbel=${UMBEL_BINARY:-$here/../../build/release/tools/umbel}
[ -x "$umbel" ] || { echo "sched: $umbel is missing" >&2; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# scenario PROCESSORS GUESTS: two hogs a processor, so that none is ever idle, and dom0 with a vCPU on each. The real-time guests
# have just booted, and are of three kinds: they need 10, 20 and 30 % of a processor. The first two seconds are not counted.
scenario() {
    local n kinds=("periodic 5ms work 500us" "periodic 10ms work 2ms" "periodic 20ms work 6ms")
    printf 'processors %d\ntime %s\nwarmup 2s\ngantt 4s 60ms\n%s\n' "$1" "$time" "$add"
    printf 'domain dom0 vcpus %d io 20ms work 300us\ndomain hog x %d hog\n' "$1" $((2 * $1))
    for ((n = 0; n < $2; n++)); do
        printf 'domain rt%d rt boot 300ms %s\n' "$n" "${kinds[n % 3]}"
    done
}

# simulate FILE [OPTION...]: a line for each policy, as --tsv has it from there on.
simulate() {
    "$umbel" sched sim --policy all --runs "$runs" --json "${@:2}" "$1" | awk '
        function value(key) {
            return match($0, "\"" key "\": [-0-9.]+") ? substr($0, RSTART + length(key) + 4, RLENGTH - length(key) - 4) : "?"
        }
        /"policy"/ {
            split($0, part, "\"")
            policy = part[4]
            rest = value("rt_misses") " " value("rt_jobs") " " value("rt_ns") " " value("ordinary_ns") " " \
                value("switching_ns") " " value("moves") " " value("rt_met") " " value("weight_error")
        }
        /"rt_latency"/ { print policy, value("mean_ns"), value("p50_ns"), value("p99_ns"), value("max_ns"), rest }'
}

[ -n "$tsv" ] || cat <<'TABLE'
| processors | guests | mean us | 99 % us | longest us | late jobs % | Credit / ours: mean, 99 % | R_Credit / ours: mean, 99 % | met in R_Credit, ours | ordinary lost / rt used | weight error % |
|---|---|---|---|---|---|---|---|---|---|---|
TABLE
for p in $processors; do
    scenario "$p" 0 >"$work/without"
    simulate "$work/without" >"$work/base"
    for g in $guests; do
        scenario "$p" "$g" >"$work/with"
        picture=()
        [ -z "$svg" ] || [ "$p,$g" != 4,4 ] || picture=(--svg "$svg")
        simulate "$work/with" "${picture[@]}" >"$work/rows"
        awk -v p="$p" -v g="$g" -v tsv="$tsv" '
            function three(format, at) { printf " " format " / " format " / " format " |", at[1], at[2], at[3] }
            NR == FNR { base[$1] = $9; next }
            tsv { print p, g, $0, base[$1]; next }
            {
                n++
                mean[n] = $2 / 1e3; p99[n] = $4 / 1e3; most[n] = $5 / 1e3; late[n] = $7 ? 100 * $6 / $7 : 0
                lost[n] = $8 ? (base[$1] - $9) / $8 : 0; met[n] = $12; error[n] = 100 * $13
            }
            END {
                if (tsv) exit
                printf "| %d | %d |", p, g
                three("%.1f", mean); three("%.1f", p99); three("%.0f", most); three("%.2f", late)
                printf " %.1f, %.1f | %.1f, %.1f | %d, %d |", mean[1] / mean[3], p99[1] / p99[3], mean[2] / mean[3], p99[2] / p99[3], met[2], met[3]
                three("%.3f", lost); three("%.1f", error)
                print ""
            }' "$work/base" "$work/rows"
    done
done
