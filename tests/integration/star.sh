#!/bin/bash
# The whole star, each part on a machine of its own (a network namespace), with TLS between them: the pool's NFS server, the
# centre, three nodes, two mounts that have no node. A real source tree goes in through one mount and is read through the
# other by each of the three roads: from the node that staged it, from a node's cache, from the pool.
. "$(dirname "$0")/lib.sh"
. "$HERE/lib_spaces.sh"
. "$HERE/lib_source.sh"
POOL=nfs
need tar tcpdump
PORT=17000
MARK=UMBEL-KNOWN-PLAIN-TEXT-0815

make_spaces pool centre one two three a b
GANESHA_NET=$(space_path pool) GANESHA_ADDRESS=$(address_of pool)
make_work
A=$WORK/a B=$WORK/b
mkdir "$A" "$B"
EXTRA_MOUNTS+=("$A" "$B")

# at SPACE COMMAND...: on that machine
at() {
    local s=$1
    shift
    UMBEL_MACHINE=$s in_space "$s" "$@"
}
umbel() { UMBEL_MOUNT=$MNT at centre "$UMBEL" "$@"; }
node_of() { sed -n "s/^$2 //p" "$MNT/.umbel/nodes/$1/status"; }
node_here() { grep -q '^here yes' "$MNT/.umbel/nodes/$1/status"; }
counted() { sleep 3.3; } # mounts and nodes say what they did within so long
at_nodes() { # KIND: the sum of a counter over all nodes
    local node sum=0
    for node in one two three; do sum=$((sum + $(node_of $node "$1"))); done
    echo $sum
}

step "the centre, and three nodes that join it"
at centre "$UMBEL" up --root "$ROOT" --mount "$MNT" --listen "$(address_of centre):$PORT" --capacity 64M --seal on \
    --pool "$(ganesha_url "$WORK/nfs/export/pool")" >>"$WORK/up.log" 2>&1 || { cat "$WORK/up.log" >&2; fail "umbel up"; }
mapfile -t DAEMONS < <(cat "$ROOT"/run/*.pid)
join() { # SPACE ROLE NAME
    at "$1" "$UMBEL" join --centre "$(address_of centre):$PORT" --token "$(umbel token $([ "$2" != mount ] || echo --squash none) "$2" "$3")" --dir "$WORK/$3.joined" >/dev/null ||
        fail "$3 cannot join"
}
for s in one two three; do
    join $s node $s
    UMBEL_MACHINE=$s become_in_space $s "$UMBEL" node --identity "$WORK/$s.joined" --listen "$(address_of $s):17100" --capacity 400M \
        >"$WORK/node-$s.log" 2>&1 &
    PIDS+=($!)
done
for s in one two three; do within "$(slow 30)" node_here $s || { cat "$WORK"/node-*.log >&2; fail "node $s is not here"; }; done
umbel set flush_age 86400 >/dev/null

step "the centre's own node is let go"
umbel release node-1
within 30 grep -q '^state gone' "$MNT/.umbel/nodes/node-1/status" || fail "node-1: $(cat "$MNT/.umbel/nodes/node-1/status")"

step "two mounts without a node on their machines"
join a mount left
join b mount right
at a "$UMBEL" mount --identity "$WORK/left.joined" "$A" >/dev/null || fail "mount A"
at b "$UMBEL" mount --identity "$WORK/right.joined" "$B" >/dev/null || fail "mount B"
become_in_space hub tcpdump -i br0 -s 0 -U -w "$WORK/wire.pcap" >"$WORK/tcpdump.log" 2>&1 &
dump=$!
PIDS+=($dump)

step "a source tree goes in through A, and is read through B while it is staged"
source_tree "$WORK/source"
for i in $(seq 1000); do echo $MARK; done >"$WORK/source/mark"
bytes=$(find "$WORK/source" -type f -printf '%s\n' | awk '{ s += $1 } END { print s }')
say "$(find "$WORK/source" -type f | wc -l) files, $bytes bytes"
written=$(at_nodes write_bytes)
tar -C "$WORK/source" --format=posix -cf - . | tar -C "$A" -xf -
counted
[ $(($(at_nodes write_bytes) - written)) -ge "$bytes" ] || fail "the nodes got $(($(at_nodes write_bytes) - written)) of $bytes bytes"
for s in one two three; do
    [ "$(node_of $s staged)" -gt 0 ] || fail "node $s has got nothing: $(cat "$MNT/.umbel/nodes/$s/status")"
done
says 'staged' umbel where "$MNT/Makefile" || fail "where: $(umbel where "$MNT/Makefile")"

# road STATE NODES POOL FETCHED: B reads all of it, as its sums say, and of its bytes so many come from nodes, from the
# pool by B itself, and from the pool by nodes: all, none or any
road() {
    local what=$1 name value want i=0
    local before=("$(at_nodes read_bytes)" "$(status_of mounts_pool_read)" "$(at_nodes fetched_bytes)")
    same_tree "$WORK/source" "$B" "$what"
    counted
    local after=("$(at_nodes read_bytes)" "$(status_of mounts_pool_read)" "$(at_nodes fetched_bytes)")
    for name in "read at nodes" "read from the pool by the mount" "fetched by nodes"; do
        value=$((after[i] - before[i])) want=${*:i+2:1}
        say "$what: $value bytes $name"
        case $want in
        all) [ $value -ge "$bytes" ] || fail "$what: $value of $bytes bytes were $name" ;;
        none) [ $value = 0 ] || fail "$what: $value bytes were $name" ;;
        esac
        i=$((i + 1))
    done
}
cold() { echo 3 >/proc/sys/vm/drop_caches || skip "the kernel's caches cannot be dropped here"; }
road staged all none none

step "after a flush, from the nodes' caches"
umbel flush
nothing_staged() { [ "$(status_of staged)" = 0 ]; }
within 10 nothing_staged || fail "$(status_of staged) bytes are staged after a flush"
says 'cached' umbel where "$MNT/Makefile" || fail "where: $(umbel where "$MNT/Makefile")"
cold
road cached all none none
packs=$(find "$WORK/nfs/export/pool/packs" -type f | wc -l)
[ "$packs" -le 30 ] || fail "so small a tree made $packs packs"

step "after an eviction, from the pool"
umbel evict "$MNT"
[ ! -s "$MNT/.umbel/cache" ] || fail "lines after an eviction: $(head "$MNT/.umbel/cache")"
says 'pool' umbel where "$MNT/Makefile" || fail "where: $(umbel where "$MNT/Makefile")"
cold
road evicted none all none

step "neither the wire nor the pool can be read"
sleep 1
kill -TERM $dump
wait $dump 2>/dev/null || true
[ "$(stat -c %s "$WORK/wire.pcap")" -gt "$bytes" ] || fail "not all was captured: $(cat "$WORK/tcpdump.log")"
! grep -qa "$MARK" "$WORK/wire.pcap" || fail "known plain text went over the wire"
! grep -rqa "$MARK" "$WORK/nfs/export/pool" || fail "known plain text lies in the pool"

step "a node is drained: nothing of it is left behind"
cp -a "$WORK/source" "$A/again"
[ "$(node_of two staged)" -gt 0 ] || fail "node two got nothing to drain"
umbel drain two
! grep -q ' two ' "$MNT/.umbel/cache" || fail "lines of a drained node: $(grep ' two ' "$MNT/.umbel/cache" | head)"
[ "$(find "$WORK/two.joined" -path '*files*' -type f | wc -l)" = 0 ] || fail "a drained node keeps files: $(find "$WORK/two.joined" -type f | head)"
same_tree "$WORK/source" "$B/again" "after a drain"

fsck_clean --data
umount "$A" "$B"
say ok
