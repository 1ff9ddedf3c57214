#!/bin/bash
# The roads of data beside what others make of the same bytes, on one NFS-Ganesha, over TLS, each part on a machine of its own
# (network namespaces): ratios, the median of the rounds, each round in changing order. No threshold: it only measures.
#   roads.sh [MEGABYTES [ROUNDS [FILES]]]     (480, 3 and 20000 if nothing is said; $UMBEL_TEST_DIR needs ten times MEGABYTES)
#
#   write    straight to the pool, with fsync, by a mount without a node       nfs-cp (libnfs' tool; it commits at the end)
#   read     from the pool, by a mount without a node: cold for the mount      nfs-cp
#   fetch    the same by a mount whose machine has a node, which keeps it     nfs-cp
#   node     staged data of a node on another machine, by TLS                  iperf3, plain; openssl s_server to s_client, by TLS
#   flush    FILES small files of 4 KiB                                        nfs_tree: cp -r by libnfs, mounted once;
#                                                                              nfs-cp, once for each file, counted up from a few
# Beside each wall-clock figure stand CPU seconds for each GiB (for all files of a flush) of client and server: of a machine
# that others keep busy, those are what can be compared.
set -euo pipefail
megabytes=${1:-480} rounds=${2:-3} files=${3:-20000}
here=$(cd "$(dirname "$0")" && pwd)
set --
. "$here/../integration/lib.sh"
. "$HERE/lib_spaces.sh"
POOL=nfs
PORT=17000
NODE_CAPACITY=$((megabytes * (rounds + 2) + 512))M
need nfs-cp iperf3 openssl setfattr
make_spaces pool centre one a b
GANESHA_NET=$(space_path pool) GANESHA_ADDRESS=$(address_of pool)
make_work
[ -x "$TOOLS/nfs_tree" ] || fail "no $TOOLS/nfs_tree"
A=$WORK/a B=$WORK/b
mkdir "$A" "$B"
EXTRA_MOUNTS+=("$A" "$B")

at() { # SPACE COMMAND...
    local s=$1
    shift
    UMBEL_MACHINE=$s in_space "$s" "$@"
}
umbel() { UMBEL_MOUNT=$MNT at centre "$UMBEL" "$@"; }
node_here() { grep -q '^here yes' "$MNT/.umbel/nodes/one/status"; }
export_url() { ganesha_url "$WORK/nfs/export/${1:-}"; }

at centre "$UMBEL" up --root "$ROOT" --mount "$MNT" --listen "$(address_of centre):$PORT" --capacity "$NODE_CAPACITY" --seal on \
    --pool "$(export_url pool)" >>"$WORK/up.log" 2>&1 || { cat "$WORK/up.log" >&2; fail "umbel up"; }
mapfile -t DAEMONS < <(cat "$ROOT"/run/*.pid)
join() { # SPACE ROLE NAME
    at "$1" "$UMBEL" join --centre "$(address_of centre):$PORT" --token "$(umbel token $([ "$2" != mount ] || echo --squash none) "$2" "$3")" --dir "$WORK/$3.joined" >/dev/null ||
        fail "$3 cannot join"
}
umbel set flush_age 86400 >/dev/null
umbel set direct_size 1T >/dev/null
mount_at() { # SPACE NAME MOUNTPOINT
    join "$1" mount "$2"
    at "$1" "$UMBEL" mount --identity "$WORK/$2.joined" "$3" >/dev/null || fail "mount $2"
}
mount_at a left "$A"
mount_at b right "$B"
sleep 3.3 # mounts have heard the settings

mount_pid() { cat "$WORK/$1.joined"/run/mount-*.pid; }
LEFT=$(mount_pid left) RIGHT=$(mount_pid right)
HERE_TOO="$(pid_of node-1) $(pid_of mount-mnt)"

# --- measuring

cpu() { # PID...: milliseconds of CPU
    local pid sum=0
    for pid; do sum=$((sum + $(sed 's/.*) //' "/proc/$pid/stat" | awk '{ print ($12 + $13) * 10 }'))); done
    echo $sum
}

# A virtual machine may have given its free memory back to its host: each page is then fetched from there at first use (measured
# here: 230 MB/s into a file in memory instead of 5 GB/s), which would be most of every figure, of whoever comes first. So as
# much as any road fills is used and freed before each.
warm_memory() {
    dd if=/dev/zero of=/dev/shm/umbel-roads-warm.$$ bs=1M count=$((megabytes * 4)) status=none || fail "no memory to warm"
    rm "/dev/shm/umbel-roads-warm.$$"
}

# timed FIGURE "PIDS" COMMAND...: milliseconds by the wall clock, of CPU by the command and those processes, and by Ganesha
timed() {
    local figure=$1 pids=$2 from to mine server
    shift 2
    warm_memory
    # shellcheck disable=SC2086
    mine=$(cpu $pids) server=$(cpu "$GANESHA_PID") from=$(date +%s%N)
    { time "$@" >"$WORK/out" 2>"$WORK/err"; } 2>"$WORK/time" || { cat "$WORK/out" "$WORK/err" >&2; fail "$*"; }
    to=$(date +%s%N)
    # shellcheck disable=SC2086
    mine=$(($(cpu $pids) - mine + $(tail -n 1 "$WORK/time" | awk '{ print int(($1 + $2) * 1000) }')))
    echo "$(((to - from) / 1000000)) $mine $(($(cpu "$GANESHA_PID") - server))" >>"$WORK/$figure"
}
TIMEFORMAT='%U %S'
median() { # FIGURE COLUMN
    cut -d' ' -f"$2" "$WORK/$1" | sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}
hundredths() { printf '%d.%02d' $(($1 / 100)) $(($1 % 100)); }
# of FIGURE: "MiB/s, CPU s/GiB (and the pool's)"
figures() {
    local ms
    ms=$(median "$1" 1)
    printf '%6d MiB/s, CPU %s + %s s/GiB' $((megabytes * 1000 / (ms > 0 ? ms : 1))) \
        "$(hundredths $(($(median "$1" 2) * 1024 / 10 / megabytes)))" "$(hundredths $(($(median "$1" 3) * 1024 / 10 / megabytes)))"
}
row() { # NAME OURS THEIRS
    printf '%-7s umbel %s   %-12s %s   %s times as fast\n' "$1" "$(figures "$2")" "$3" "$(figures "$3")" \
        "$(hundredths $(($(median "$3" 1) * 100 / $(median "$2" 1))))"
}
either_way() { # ROUND ONE OTHER: both, in changing order
    if [ $(($1 % 2)) = 1 ]; then $2 && $3; else $3 && $2; fi
}

# --- large files

head -c "${megabytes}M" /dev/urandom >"$WORK/source"
# A file of its own for each round and road: nothing of it is in anybody's memory but the server's, which wrote it.
mkdir "$A/asked" "$A/staged"
setfattr -n umbel.direct -v 1 "$A/asked"
write_theirs() { timed nfs-cp.write "" at a nfs-cp "$WORK/source" "$(export_url "copy-$round")"; }
write_ours() { timed write "$LEFT" at a dd if="$WORK/source" of="$A/asked/$round" bs=1M conv=fsync; }
read_theirs() { timed nfs-cp.read "" at b nfs-cp "$(export_url "copy-$round")" "$WORK/back"; }
read_ours() { timed read "$RIGHT" at b dd if="$B/asked/$round" of="$WORK/back" bs=1M; }
fetch_ours() { timed fetch "$HERE_TOO" at centre dd if="$MNT/asked/$round" of="$WORK/back" bs=1M; }
back() { # FUNCTION: the file that it writes is new each time, and has the right bytes
    rm -f "$WORK/back"
    $1
    cmp "$WORK/source" "$WORK/back" || fail "$1: other bytes"
}
node_ours() { timed node "$RIGHT $NODE" at b dd if="$B/staged/$round" of=/dev/null bs=1M; }
node_plain() { timed iperf3 "$IPERF" at one iperf3 -p 5201 -c "$(address_of b)" -n "${megabytes}M"; }
get() { printf 'GET /source HTTP/1.0\r\n\r\n' | at b openssl s_client -quiet -tls1_3 -connect "$(address_of one):5202"; }
get_all() { [ "$(get 2>/dev/null | wc -c)" -ge $((megabytes << 20)) ]; }
node_tls() { timed openssl "$OPENSSL" get_all; }

become_in_space b iperf3 -s -p 5201 >/dev/null & IPERF=$!
PIDS+=($IPERF)
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=bench -keyout "$WORK/key" -out "$WORK/cert" 2>/dev/null
(cd "$WORK" && become_in_space one openssl s_server -quiet -WWW -tls1_3 -cert cert -key key -accept 5202 >/dev/null 2>&1) & OPENSSL=$!
PIDS+=($OPENSSL)
sleep 1

for round in $(seq "$rounds"); do
    either_way "$round" write_theirs write_ours
    either_way "$round" "back read_theirs" "back read_ours"
    back fetch_ours
    rm "$WORK/nfs/export/copy-$round"
done

# The other node takes what is staged from here on.
join one node one
UMBEL_MACHINE=one become_in_space one "$UMBEL" node --identity "$WORK/one.joined" --listen "$(address_of one):17100" \
    --capacity "$NODE_CAPACITY" >"$WORK/node-one.log" 2>&1 &
NODE=$!
PIDS+=($NODE)
within 30 node_here || { cat "$WORK/node-one.log" >&2; fail "the node is not here"; }
umbel release node-1 >/dev/null
for round in $(seq "$rounds"); do
    dd if="$WORK/source" of="$A/staged/$round" bs=1M status=none
    node_plain
    either_way "$round" node_tls node_ours
    rm "$A/staged/$round"
done

row write write nfs-cp.write
row read read nfs-cp.read
row fetch fetch nfs-cp.read
row node node iperf3
row node node openssl

# --- small files

folders=20 few=300
for n in $(seq $folders); do
    mkdir -p "$WORK/small/$n"
    head -c $((files / folders * 4096)) /dev/urandom | split -b 4096 -a 4 - "$WORK/small/$n/f"
done
cp -r "$WORK/small" "$A/small"
flush_theirs() { timed nfs_tree "" at a "$TOOLS/nfs_tree" "$WORK/small" "$(export_url)" small; }
flush_ours() { timed flush "$NODE" umbel flush "$MNT/small"; }
by_nfs_cp() {
    local file n=0
    for file in "$WORK"/small/1/*; do
        n=$((n + 1))
        [ $n -le $few ] || break
        at a nfs-cp "$file" "$(export_url "one-$n")" || return 1
    done
}
flush_theirs
flush_ours
timed nfs-cp.files "" by_nfs_cp
ours=$(median flush 1) tree=$(median nfs_tree 1) each=$(($(median nfs-cp.files 1) * files / few))
printf 'flush   umbel %d ms for %d files of 4 KiB, CPU %d + %d ms   nfs_tree %d ms, CPU %d + %d ms   %s times as fast   (nfs-cp by file: %d ms)\n' \
    "$ours" "$files" "$(median flush 2)" "$(median flush 3)" "$tree" "$(median nfs_tree 2)" "$(median nfs_tree 3)" \
    "$(hundredths $((tree * 100 / ours)))" "$each"
say "the CPU of one AES-256-GCM: $(openssl speed -seconds 1 -evp aes-256-gcm -bytes 16384 2>/dev/null | awk '/GCM/ { print $NF "B/s" }')"
