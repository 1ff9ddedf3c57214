# What the scripts for dom0 share. They run in /test; what they leave in /out comes out of the machine.
consoles=/var/log/xen/console

# What the test is about goes there, a line each; also to the console, to watch.
result() {
    echo "$*" >>/out/results
    echo "RESULT $*"
}

fail() {
    result "failed $*"
    exit 1
}

# guest NAME ROLE [LINE...]: a PV guest of one vCPU and 96 MiB; LINEs of xl's configuration go before all else.
guest() {
    local name=$1 role=$2
    shift 2
    {
        printf '%s\n' "name=\"$name\"" 'type="pv"' 'memory=96' 'vcpus=1' 'kernel="/test/vmlinuz"' 'ramdisk="/test/guest.img"' \
            "extra=\"console=hvc0 quiet role=$role\"" 'on_poweroff="destroy"' 'on_crash="destroy"' "$@"
    } >"/tmp/$name.cfg"
    xl create -q "/tmp/$name.cfg" >"/tmp/$name.log" 2>&1 || { cat "/tmp/$name.log"; return 1; }
}

# says NAME TEXT SECONDS: until the guest's console has it.
says() {
    local until=$((SECONDS + $3))
    until grep -aq "$2" "$consoles/guest-$1.log" 2>/dev/null; do
        if [ $SECONDS -ge $until ]; then
            echo "DOM0 the console of $1 ends so:"
            tail -n 5 "$consoles/guest-$1.log"
            xl vcpu-list
            xl debug-keys r
            return 1
        fi
        sleep "${poll:-0.5}"
    done
}

scheduler() { xl info | awk '$1 == "xen_scheduler" { print $3 }'; }
real_time() { xl sched-credit -d "$1" -w 65535; }
ordinary() { xl sched-credit -d "$1" -w "${2:-65534}"; }
weight() { xl sched-credit -d "$1" | awk -v d="$1" '$1 == d { print $3 }'; }
