#!/bin/bash
# Instructions per decision of the scheduler's core with 1, 10, 100 and 1,000 vCPUs on 8 processors, counted by
# valgrind --tool=callgrind (sched_cost.c is what they do). Prints a table; counts, not times, so a busy machine changes nothing.
#   sched_cost.sh [--policy NAME] [--steps N]
set -euo pipefail

policy=r_b_credit steps=4000
while [ $# -gt 0 ]; do
    case $1 in
    --policy) policy=${2:?--policy needs a name}; shift ;;
    --steps) steps=${2:?--steps needs a number}; shift ;;
    *) printf 'sched_cost: unknown argument: %s\n' "$1" >&2; exit 2 ;;
    esac
    shift
done
here=$(cd "$(dirname "$0")" && pwd)
tool=${UMBEL_TEST_TOOLS:-$here/../../build/release/tests/tools}/sched_cost
[ -x "$tool" ] || { echo "sched_cost: $tool is missing" >&2; exit 77; }
command -v valgrind >/dev/null || { echo "sched_cost: valgrind is missing" >&2; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "| $policy | 1 vCPU | 10 | 100 | 1,000 |"
echo "|---|---|---|---|---|"
for function in rbc_wake rbc_sleep rbc_schedule rbc_saved rbc_tick rbc_account; do
    printf '| %s |' "$function"
    for vcpus in 1 10 100 1000; do
        valgrind --tool=callgrind --callgrind-out-file="$work/out" --toggle-collect="$function" \
            "$tool" "$policy" 8 "$vcpus" "$steps" >"$work/calls" 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
        calls=$(awk -v f="$function" '$1 == f { print $2 }' "$work/calls")
        all=$(sed -n 's/.*Collected : \([0-9]*\).*/\1/p' "$work/log")
        [ "$calls" -gt 0 ] && [ -n "$all" ] && printf ' %d |' $((all / calls)) || printf ' - |'
    done
    echo
done
