#!/bin/bash
# R_B_Credit beside Credit and R_Credit in the simulator (hv/sched/sim): 1-8 real-time guests among hogs on 2-16 processors.
# Prints hv/sched/README.md's table and draws its pictures. Exact: the same on every machine, however busy. No threshold here.
#   sched.sh [--runs N] [--time D] [--processors "2 4"] [--guests "1 2"] [--pictures DIR] [--tsv]
# --tsv: one line a row and policy, with all figures in ns, for programs.
set -euo pipefail

runs=30 time=10s processors="2 4 8 16" guests="1 2 4 8" pictures= tsv=
while [ $# -gt 0 ]; do
    case $1 in
    --runs) runs=${2:?--runs needs a number}; shift ;;
    --time) time=${2:?--time needs a duration}; shift ;;
    --processors) processors=${2:?--processors needs numbers}; shift ;;
    --guests) guests=${2:?--guests needs numbers}; shift ;;
    --pictures) pictures=${2:?--pictures needs a folder}; shift ;;
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

# scenario PROCESSORS GUESTS: two hogs a processor, so that none is ever idle; each real-time guest needs a fifth of one.
scenario() {
    printf 'processors %d\ntime %s\nwarmup 1s\ngantt 2s 60ms\n' "$1" "$time"
    [ "$2" = 0 ] || printf 'domain rt x %d rt periodic 5ms work 1ms\n' "$2"
    printf 'domain hog x %d hog\n' $((2 * $1))
}

# simulate FILE: "policy mean p50 p99 max misses jobs rt_ns ordinary_ns switching_ns moves met weight_error" a line.
simulate() {
    "$umbel" sched sim --policy all --runs "$runs" --json "${@:2}" "$1" | awk '
        function value(key) { return match($0, "\"" key "\": [-0-9.]+") ? substr($0, RSTART + length(key) + 4, RLENGTH - length(key) - 4) : "?" }
        /"policy"/ { split($0, part, "\""); policy = part[4]
            rest = value("rt_misses") " " value("rt_jobs") " " value("rt_ns") " " value("ordinary_ns") " " \
                value("switching_ns") " " value("moves") " " value("rt_met") " " value("weight_error") }
        /"rt_latency"/ { print policy, value("mean_ns"), value("p50_ns"), value("p99_ns"), value("max_ns"), rest }'
}

[ -n "$tsv" ] || cat <<'TABLE'
| processors | real-time guests | mean us: credit | r_credit | r_b_credit | 99% us: credit | r_credit | r_b_credit | longest us: credit | r_credit | r_b_credit | late %: credit | r_credit | r_b_credit | times: mean | 99% | to r_credit | ordinary lost / rt used |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
TABLE
for p in $processors; do
    scenario "$p" 0 >"$work/without"
    simulate "$work/without" >"$work/base"
    for g in $guests; do
        scenario "$p" "$g" >"$work/with"
        picture=()
        [ -z "$pictures" ] || [ "$p,$g" != 4,4 ] || picture=(--svg "$pictures/sim.svg")
        simulate "$work/with" "${picture[@]}" >"$work/rows"
        awk -v p="$p" -v g="$g" -v tsv="$tsv" '
            NR == FNR { base[$1] = $9; next }
            tsv { print p, g, $0, base[$1] }
            { at[$1] = ++n; mean[n] = $2; p99[n] = $4; max[n] = $5; late[n] = $7 ? 100 * $6 / $7 : 0; rt[n] = $8; lost[n] = base[$1] - $9 }
            END {
                if (tsv) exit
                printf "| %d | %d |", p, g
                for (n = 1; n <= 3; n++) printf " %.1f |", mean[n] / 1e3
                for (n = 1; n <= 3; n++) printf " %.1f |", p99[n] / 1e3
                for (n = 1; n <= 3; n++) printf " %.0f |", max[n] / 1e3
                for (n = 1; n <= 3; n++) printf " %.2f |", late[n]
                printf " %.0f | %.0f | %.1f | %.3f |\n", mean[1] / mean[3], p99[1] / p99[3], mean[2] / mean[3], lost[3] / rt[3]
            }' "$work/base" "$work/rows"
    done
done
