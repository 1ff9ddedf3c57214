#!/bin/bash
# Two processors with a hog each, and two real-time guests that begin on the same one and may then use both: where does the
# scheduler let them run? Its own trace says it.
. ./lib.sh
. ./settings

for cpu in 0 1; do
    guest hog$cpu hog "cpus=\"$cpu\"" || fail "guest hog$cpu was not created"
done
for name in rt1 rt2; do
    guest $name wake:5000:0 'cpus="1"' 'cpu_weight=65535' || fail "guest $name was not created"
done
for name in hog0 hog1 rt1 rt2; do
    says $name 'GUEST up' 300 || fail "guest $name does not boot"
done
sleep 3
xl vcpu-pin rt1 all all && xl vcpu-pin rt2 all all || fail "the affinity does not change"
sleep 1
xentrace -D -e 0x22000 -S 256 -T "$seconds" /tmp/trace >/out/xentrace.log 2>&1
./tracecount /tmp/trace >/out/counts || fail "the trace cannot be read"
xl debug-keys r
for name in rt1 rt2; do
    result "guest $name $(xl domid $name)"
done
while read -r line; do result "$line"; done </out/counts
xl vcpu-list
for name in hog0 hog1 rt1 rt2; do xl destroy $name; done
xl dmesg | grep -q 'invariants: kept' || fail "an invariant is broken"
result "passed balance"
