#!/bin/bash
# Three nodes and two mounts: where data goes, from where it is read, what a node that is lost, frozen, released or
# forgotten means to everybody. UMBEL_MACHINE makes the processes of this machine count as several machines.
. "$(dirname "$0")/lib.sh"
make_work

OTHER=$WORK/other
mkdir "$OTHER"
node_file() { cat "$MNT/.umbel/nodes/$1/status"; }
counter() { sed -n "s/^$2 //p" "$MNT/.umbel/nodes/$1/status"; }
lines_of() { awk -v node="$1" -v kind="$2" '$2 == node && $3 == kind' "$MNT/.umbel/cache"; }
has_line() { awk -v path="$1" -v node="$2" -v kind="$3" '$1 == path && $2 == node && $3 == kind { found = 1 } END { exit !found }' "$MNT/.umbel/cache"; }
no_lines() { [ -z "$(lines_of "$1" "$2")" ]; }
home_of() { awk -v path="$1" '$1 == path && $3 == "staged" { print $2 }' "$MNT/.umbel/cache"; }
dead() { ! kill -0 "$1" 2>/dev/null; }
cold() { echo 3 >/proc/sys/vm/drop_caches || skip "the kernel's caches cannot be dropped here"; }
# A file's bytes were read at that node and came from there alone.
grew() { [ "$(counter "$1" "$2")" -ge $(($3 + $4)) ]; }
sum() { sha256sum <"$1"; }

step "a node on each of three machines"
UMBEL_MACHINE=one up --capacity 300M
UMBEL_MACHINE=two up --nodes 2
UMBEL_MACHINE=three up --nodes 3
UMBEL_MACHINE=far "$UMBEL" mount --root "$ROOT" "$OTHER" >/dev/null
EXTRA_MOUNTS+=("$OTHER")
umbel set flush_age 86400
says '^machine three' node_file node-3 || fail "node-3: $(node_file node-3)"
head -c 1M /dev/urandom >"$WORK/a"
head -c 1M /dev/urandom >"$WORK/b"

echo one >"$MNT/held" # open until the end: longer than a ticket is good for
exec {held}<>"$MNT/held"

step "what is written stays on the writer's machine, if it has a node"
mkdir "$MNT/near" "$MNT/far"
for i in 1 2 3 4 5 6; do cp "$WORK/a" "$MNT/near/$i"; done
within 10 has_line /near/6 node-1 staged || fail "the table: $(cat "$MNT/.umbel/cache")"
[ "$(lines_of node-1 staged | grep -c "^/near")" = 6 ] || fail "not all went to node-1: $(cat "$MNT/.umbel/cache")"

step "else it is spread by what is free"
for i in $(seq 18); do cp "$WORK/b" "$OTHER/far/$i"; done
all_there() { [ "$(grep -c '^/far/.* staged ' "$MNT/.umbel/cache")" = 18 ]; }
within 10 all_there || fail "the table: $(cat "$MNT/.umbel/cache")"
for node in node-2 node-3; do
    n=$(lines_of $node staged | wc -l)
    [ "$n" -ge 4 ] || fail "$node got $n of 18 files: $(cat "$MNT/.umbel/cache")"
done

step "staged data is read at its home"
file='' # one that lies at node-2
for i in $(seq 18); do
    [ "$(home_of "/far/$i")" != node-2 ] || file=$i
done
before=$(counter node-2 read_bytes)
cmp "$WORK/b" "$MNT/far/$file"
within 10 grew node-2 read_bytes "$before" 1048576 || fail "it was not read at node-2"

step "after a flush in the node's cache"
umbel flush
[ "$(awk '$3 == "staged"' "$MNT/.umbel/cache" | wc -l)" = 0 ] || fail "staged after a flush: $(cat "$MNT/.umbel/cache")"
has_line "/far/$file" node-2 cached || fail "not cached where it was staged"
cold
sleep 1.5 # counters are a second old
before=$(counter node-2 read_bytes) fetched=$(counter node-2 fetched_bytes)
cmp "$WORK/b" "$MNT/far/$file"
within 10 grew node-2 read_bytes "$before" 1048576 || fail "it was not read at node-2"
[ "$(counter node-2 fetched_bytes)" = "$fetched" ] || fail "a cached file was fetched"

step "after an eviction in the pool, through the reader's own machine"
umbel evict "$MNT"
[ ! -s "$MNT/.umbel/cache" ] || fail "lines after an eviction: $(cat "$MNT/.umbel/cache")"
cold
fetched=$(counter node-1 fetched_bytes)
cmp "$WORK/b" "$MNT/far/$file"
within 10 grew node-1 fetched_bytes "$fetched" 1048576 || fail "node-1 did not fetch it"
within 10 has_line "/far/$file" node-1 cached || fail "node-1 does not keep what it fetched"
cmp "$WORK/b" "$OTHER/far/$file" # from node-1
for i in $(seq 18); do cmp "$WORK/b" "$OTHER/far/$i"; done
for i in 1 2 3 4 5 6; do cmp "$WORK/a" "$OTHER/near/$i"; done

step "a file that is read much is cached by more nodes, until it cools"
head -c 8M /dev/urandom >"$WORK/hot"
cp "$WORK/hot" "$MNT/hot"
umbel flush
umbel set hot_rate 1M >/dev/null
umbel set hot_cool 3 >/dev/null
copies() { awk '$1 == "/hot" && $3 == "cached" { n++ } END { print n + 0 }' "$MNT/.umbel/cache"; }
[ "$(copies)" = 1 ] || fail "$(copies) nodes cache it at the beginning: $(grep ^/hot "$MNT/.umbel/cache")"
(trap 'exit 0' TERM; while :; do dd if="$OTHER/hot" of=/dev/null bs=1M iflag=direct status=none || exit 1; done) & reader=$!
PIDS+=($reader)
more() { [ "$(copies)" = 3 ]; }
within "$(slow 60)" more || fail "$(copies) nodes cache what is read all the time"
says 'hot /hot: .* caches it too' cat "$MNT/.umbel/events" || fail "no event of it"
kill -TERM $reader
wait $reader || fail "the reader failed"
once() { [ "$(copies)" = 1 ]; }
within "$(slow 60)" once || fail "$(copies) nodes cache what nobody reads"
has_line /hot node-1 cached || fail "the first copy went, not the extra ones: $(grep ^/hot "$MNT/.umbel/cache")"
cmp "$WORK/hot" "$OTHER/hot"
umbel set hot_rate 0 >/dev/null

# Files whose home is NODE, written through the mount on no node's machine: into the array `found`. Load counts as much
# as room, so a node's turn may take some seconds to come.
found=()
stage_at() {
    local node=$1 prefix=$2 i=0 name
    found=()
    while [ ${#found[@]} -lt 2 ]; do
        i=$((i + 1))
        [ $i -le 60 ] || fail "none of 60 files went to $node: $(cat "$MNT/.umbel/cache")"
        cp "$WORK/a" "$OTHER/$prefix$i"
        [ $((i % 6)) = 0 ] || continue
        sleep 1
        found=()
        for name in $(lines_of "$node" staged | awk '{ print substr($1, 2) }'); do
            [[ $name != "$prefix"* ]] || found+=("$name")
        done
    done
}

step "a node is killed: what only it has staged waits for it, the rest goes on"
for i in 1 2 3 4 5 6; do cmp "$WORK/a" "$OTHER/near/$i"; done
stage_at node-2 kept
umbel flush
kept=("${found[@]}")
has_line "/${kept[0]}" node-2 cached || fail "not cached where it was staged"
stage_at node-2 killed
cold
kill -KILL "$(pid_of node-2)"
for name in "${kept[@]}"; do cmp "$WORK/a" "$MNT/$name"; done
for i in 1 2 3 4 5 6; do cmp "$WORK/a" "$OTHER/near/$i"; done
for i in $(seq 18); do cmp "$WORK/b" "$MNT/far/$i"; done
within 20 no_lines node-2 cached || fail "the table still has cached lines of a node that is lost"
says 'node-lost node-2' cat "$MNT/.umbel/events" || fail "no event of it"
has_line "/${found[0]}" node-2 staged || fail "the line of staged data is gone"
sum "$MNT/${found[0]}" >"$WORK/waiting" & reader=$!
sleep 1
! dead $reader || fail "a read of what only the lost node has did not wait"
UMBEL_MACHINE=two up
wait $reader || fail "a read that waited for its node failed"
[ "$(cat "$WORK/waiting")" = "$(sum "$WORK/a")" ] || fail "a read that waited for its node got something else"
for name in "${found[@]}"; do cmp "$WORK/a" "$MNT/$name"; done

step "a node is frozen longer than the lease"
umbel flush
stage_at node-3 frozen
frozen=$(pid_of node-3)
[ -n "$(lines_of node-3 cached)" ] || fail "node-3 caches nothing: $(cat "$MNT/.umbel/cache")"
kill -STOP "$frozen"
cold
began=$SECONDS
for name in $(lines_of node-3 cached | awk '{ print substr($1, 2) }'); do
    cmp "$WORK/a" "$MNT/$name"
done
[ $((SECONDS - began)) -lt "$(slow 60)" ] || fail "reads waited $((SECONDS - began)) s for a frozen copy"
{ printf changed | dd of="$MNT/${found[0]}" conv=notrunc status=none; } & writer=$!
within 20 no_lines node-3 cached || fail "the table still has cached lines of a frozen node"
kill -CONT "$frozen"
wait $writer || fail "a write that waited for a frozen node failed"
[ "$(head -c 7 "$OTHER/${found[0]}")" = changed ] || fail "a write that waited for a frozen node is lost"
cmp <(tail -c +8 "$WORK/a") <(tail -c +8 "$OTHER/${found[0]}")
umbel flush
within 10 has_line "/${found[0]}" node-3 cached || fail "the node's lines do not come back: $(cat "$MNT/.umbel/cache")"

step "a node is released: nothing of it is left"
stage_at node-3 released
pid=$(pid_of node-3)
umbel release node-3
within 20 dead "$pid" || fail "a released node runs on"
says '^state gone' node_file node-3 || fail "node-3: $(node_file node-3)"
no_lines node-3 staged && no_lines node-3 cached || fail "lines of a released node: $(cat "$MNT/.umbel/cache")"
within 10 test -e "$ROOT/node-3/gone" || fail "no note in its store"
[ "$(find "$ROOT/node-3" -type f ! -name gone | wc -l)" = 0 ] || fail "left in its store: $(find "$ROOT/node-3" -type f)"
for name in "${found[@]}"; do cmp "$WORK/a" "$MNT/$name"; done
says 'node-3 .*not started: released' "$UMBEL" up --root "$ROOT" || fail "up after a release"
fsck_clean

step "a node is forgotten: exactly the files that lost data are named"
umbel flush
stage_at node-2 lost
printf 'newer' | dd of="$OTHER/far/$file" conv=notrunc status=none # its home may be anywhere
sleep 1
lines_of node-2 staged | awk '{ print $1 }' | sort >"$WORK/want"
refused 1 'is here' env UMBEL_MOUNT="$MNT" "$UMBEL" forget node-2
kill -KILL "$(pid_of node-2)"
umbel forget node-2
sed -n 's/^[^ ]* lost \(.*\): [0-9]* bytes were staged only.*/\1/p' "$MNT/.umbel/events" | sort >"$WORK/got"
cmp "$WORK/want" "$WORK/got" || fail "named: $(cat "$WORK/got"); lost: $(cat "$WORK/want")"
no_lines node-2 staged && no_lines node-2 cached || fail "lines of a forgotten node: $(cat "$MNT/.umbel/cache")"
for name in "${found[@]}"; do
    [ "$(stat -c %s "$MNT/$name")" = 0 ] || fail "$name was never flushed, and has $(stat -c %s "$MNT/$name") bytes"
    echo again >"$OTHER/$name"
    [ "$(cat "$MNT/$name")" = again ] || fail "$name cannot be written again"
done
for i in $(seq 18); do
    [ "$i" = "$file" ] || cmp "$WORK/b" "$OTHER/far/$i"
done
says 'node-2 .*not started: given up' "$UMBEL" up --root "$ROOT" || fail "a forgotten node was taken back"
[ "$(find "$ROOT/node-2/files" -type f | wc -l)" -gt 0 ] || fail "the forgotten node's store was emptied"
[ $((SECONDS - STARTED)) -gt 65 ] || sleep $((66 - SECONDS + STARTED))
echo two >&$held || fail "a handle that is older than its ticket cannot be written"
[ "$(cat "$MNT/held")" = two ] || fail "in the file: $(cat "$MNT/held")"
exec {held}>&-
fsck_clean
down
say "ok"
