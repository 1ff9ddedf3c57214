#!/bin/bash
# The hypervisor runs with R_B_Credit; guests come and go through xl; marks are set, read and taken back.
. ./lib.sh

xl dmesg | grep -q 'Using scheduler: R_B_Credit (rbcredit)' || fail "Xen does not run with R_B_Credit"
guest a wake:5000:0 || fail "a guest was not created"
guest b idle 'cpu_weight=65535' || fail "a guest that is marked from the beginning was not created"
says a 'GUEST up' 150 || fail "the guest does not boot"
[ "$(weight a)" = 256 ] || fail "a new guest has weight $(weight a)"
[ "$(weight b)" = 65535 ] || fail "a guest that was to be real-time has weight $(weight b)"

xl sched-credit -d a -w 300 -c 50 && [ "$(weight a)" = 300 ] || fail "the weight does not change"
real_time a && [ "$(weight a)" = 65535 ] || fail "marking does not work"
xl sched-credit -d a -c 40 && [ "$(weight a)" = 65535 ] || fail "another cap takes the mark away"
xl sched-credit -d a | grep -q '40$' || fail "the cap was not kept"
ordinary a && [ "$(weight a)" = 300 ] || fail "the weight is not what it was before the mark: $(weight a)"
real_time a && ordinary a 77 && [ "$(weight a)" = 77 ] || fail "unmarking with a weight does not work"
xl sched-credit -d a -c 0
xl sched-credit -s -t 20 -r 500 && xl sched-credit -s | grep -q 'tslice=20ms ratelimit=500us' ||
    fail "the pool's settings do not change: $(xl sched-credit -s)"
xl sched-credit -s -t 30 -r 1000

guest c wake:5000:100 || fail "a third guest was not created"
real_time c
xl debug-keys r
xl dmesg | grep -A 40 'R_B_Credit: policy rbcredit' | tee /out/dump | grep -q 'invariants: kept' || fail "an invariant is broken"
grep -q 'real-time$' /out/dump || fail "the dump does not know who is real-time"
if [ -x ./umbel ]; then . ./umbel.sh; fi
says c 'WAKE n=100' 600 || fail "the task in the guest did not run"
for ((n = 0; n < 240; n++)); do
    xl domid c >/dev/null 2>&1 || break
    sleep 0.5
done
xl domid c >/dev/null 2>&1 && fail "the guest does not end"
xl destroy a && xl destroy b || fail "a guest cannot be destroyed"
result "passed boot"
