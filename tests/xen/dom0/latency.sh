#!/bin/bash
# How late a task of 5 ms is: alone on the processor, then beside two hogs. All on processor 0, as is dom0.
. ./lib.sh
. ./settings
poll=2
scheduler=$(scheduler)

measure() { # NAME WHAT
    guest "$1" "wake:5000:$samples" 'cpus="0"' $marked || fail "guest $1 was not created"
    says "$1" 'GUEST done' 1200 || fail "guest $1 does not end"
    result "latency $2 $(grep -ao 'WAKE .*' "$consoles/guest-$1.log" | tr -d '\r')"
    while xl domid "$1" >/dev/null 2>&1; do sleep 1; done
}

marked=
[ "$mark" = 0 ] || marked='cpu_weight=65535'
result "scheduler $scheduler"
measure alone alone
for hog in hog1 hog2; do
    guest $hog hog 'cpus="0"' || fail "guest $hog was not created"
    says $hog 'GUEST up' 600 || fail "guest $hog does not boot"
    xl pause $hog # the other one boots sooner
done
xl unpause hog1
xl unpause hog2
# It boots beside them, as a guest would; whoever has just booted has used up its credit.
measure beside hogs
for hog in hog1 hog2; do
    result "hog $(grep -ao 'HOG .*' "$consoles/guest-$hog.log" | tail -n 1 | tr -d '\r')"
    xl destroy $hog
done
result "passed latency"
