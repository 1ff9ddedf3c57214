#!/bin/bash
# The scheduler's simulator by its command, and the short form of bench/sched.sh: real-time guests among hogs, with
# thresholds. Simulated time only, so a busy machine changes nothing.
. "$(dirname "$0")/lib.sh"
make_work

cat >"$WORK/scenario" <<'SCENARIO'
processors 2
time 2s
domain hog x 4 hog
domain rt x 2 rt periodic 5ms work 500us
SCENARIO

step "the same seed says the same, another one does not"
"$UMBEL" sched sim "$WORK/scenario" --policy all --svg "$WORK/a.svg" >"$WORK/a"
"$UMBEL" sched sim "$WORK/scenario" --policy all --svg "$WORK/b.svg" >"$WORK/b"
cmp "$WORK/a" "$WORK/b" && cmp "$WORK/a.svg" "$WORK/b.svg" || fail "two runs with one seed differ"
"$UMBEL" sched sim "$WORK/scenario" --policy all --seed 2 >"$WORK/c"
! cmp -s "$WORK/a" "$WORK/c" || fail "the seed changes nothing"
says '</svg>' cat "$WORK/a.svg"
says '"policy": "r_b_credit"' "$UMBEL" sched sim "$WORK/scenario" --json

step "what it refuses"
printf 'processors 2\nprocesors 3\n' >"$WORK/bad"
refused 1 "line 2: 'procesors' is unknown" "$UMBEL" sched sim "$WORK/bad"
refused 1 'No such file' "$UMBEL" sched sim "$WORK/none"
refused 1 'No such file' "$UMBEL" sched sim "$WORK/scenario" --svg /nowhere/at/all.svg
refused 2 'none of credit' "$UMBEL" sched sim "$WORK/scenario" --policy rtds
refused 2 'say which scenario' "$UMBEL" sched sim
refused 2 'say what' "$UMBEL" sched

step "the real Xen: refused where there is none, and wrong words anywhere"
if [ ! -e /proc/xen/capabilities ]; then
    refused 1 'libxenlight|first domain' "$UMBEL" sched set somebody --real-time on
fi
refused 2 'neither on nor off' "$UMBEL" sched set somebody --real-time yes
refused 2 'no number from 1 to 65533' "$UMBEL" sched set somebody --weight 65535
refused 2 'no number from 0' "$UMBEL" sched set somebody --cap=-1
refused 2 'say which domain' "$UMBEL" sched set

step "R_B_Credit beside the others"
UMBEL_BINARY=$UMBEL bash "$(dirname "$0")/../bench/sched.sh" --tsv --runs 30 --processors "2 4" --guests "1 2 4" >"$WORK/rows" ||
    fail "bench/sched.sh: $?"
awk '
    function need(what, ok) { if (!ok) { print $1 " processors, " $2 " guests: " what; bad = 1 } }
    $3 == "credit" { mean = $4; p99 = $6 }
    $3 == "r_credit" { r_mean = $4; r_p99 = $6; met = $14 }
    $3 == "r_b_credit" {
        rows++
        need("mean " $4 " ns, Credit " mean, mean >= 10 * $4)
        need("99% " $6 " ns, Credit " p99, p99 >= 10 * $6 || $2 > $1)
        if (met > 0) { meetings++; need("mean " $4 " ns, R_Credit " r_mean, r_mean >= 3 * $4); need("99% " $6 " ns, R_Credit " r_p99, r_p99 >= 3 * $6) }
        need($8 " late jobs", $8 == 0)
        need($14 " meetings", $14 == 0 || $2 > $1)
        need("ordinary guests lose more than what real-time guests use and 2%", $16 - $11 <= 1.02 * $10)
    }
    END { if (rows != 6 || !meetings) { print rows " rows, met in " meetings; bad = 1 }; exit bad }' "$WORK/rows" >"$WORK/wrong" ||
    fail "$(cat "$WORK/wrong" "$WORK/rows")"
say ok
