#!/bin/bash
# The placement simulator (bench/place_sim.c): the same seed says the same, another one does not, every
# job is placed, and where the inputs lie saves bytes.
. "$(dirname "$0")/lib.sh"
make_work
SIM="$TOOLS/place_sim"
[ -x "$SIM" ] || skip "$SIM is missing"

step "deterministic by seed"
args=(--nodes 50 --jobs 3000 --load 70 --load 100)
"$SIM" "${args[@]}" --svg "$WORK/a.svg" >"$WORK/a" 2>"$WORK/times" || fail "place_sim: $(cat "$WORK/times")"
"$SIM" "${args[@]}" --svg "$WORK/b.svg" >"$WORK/b" 2>"$WORK/times"
cmp "$WORK/a" "$WORK/b" && cmp "$WORK/a.svg" "$WORK/b.svg" || fail "two runs with one seed differ"
"$SIM" "${args[@]}" --seed 2 >"$WORK/c" 2>"$WORK/times"
! cmp -s <(tail -n +3 "$WORK/a") <(tail -n +3 "$WORK/c") || fail "the seed changes nothing"

step "inputs are moved less than by rules that do not look where they are"
moved() { awk -v rule="$1" '$1 == "100%" && index($0, rule) { print $NF }' "$WORK/a"; }
for rule in random "round robin" "first fit"; do
    awk -v ours="$(moved umbel)" -v theirs="$(moved "$rule")" 'BEGIN { exit !(ours > 0 && ours < theirs) }' ||
        fail "$(moved umbel) TB moved, $rule: $(moved "$rule")"
done

step "what it draws and what it refuses"
says '</svg>' cat "$WORK/a.svg"
refused 2 'is no number' "$SIM" --jobs 0
refused 1 'No such file' "$SIM" --nodes 5 --jobs 50 --load 50 --svg /nowhere/at/all.svg
say ok
