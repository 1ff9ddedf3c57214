#!/bin/bash
# A mount that has no node on its machine reads and writes the pool itself: which road the bytes took, and what others see
# meanwhile. --full: 1 GiB where else a few MiB do.
. "$(dirname "$0")/lib.sh"
need setfattr sha256sum
make_work

OTHER=$WORK/other
mkdir "$OTHER" "$WORK/plain"
size=96
if full; then size=1024; fi

# elsewhere COMMAND...: as if on another machine
elsewhere() { UMBEL_MACHINE=elsewhere "$@"; }
node_of() { sed -n "s/^$2 //p" "$MNT/.umbel/nodes/$1/status"; }
sum_of() { sha256sum <"$1" | cut -d' ' -f1; }
cold() { echo 3 >/proc/sys/vm/drop_caches || skip "the kernel's caches cannot be dropped here"; }
# node_bytes: what passed the node, as it reports every second
node_bytes() { sleep 2.2; echo $(($(node_of node-1 read_bytes) + $(node_of node-1 write_bytes) + $(node_of node-1 fetched_bytes))); }

up
elsewhere "$UMBEL" mount --root "$ROOT" "$OTHER" >/dev/null
EXTRA_MOUNTS+=("$OTHER")

step "a file that nobody has but the pool is read there"
head -c 20M /dev/urandom >"$WORK/plain/a"
cp "$WORK/plain/a" "$MNT/a"
umbel flush "$MNT"
cmp "$WORK/plain/a" "$OTHER/a" # at the node, which caches it
evict_cold
before=$(node_bytes) read_before=$(status_of mounts_pool_read)
cmp "$WORK/plain/a" "$OTHER/a" || fail "what was read from the pool differs"
[ "$(node_bytes)" = "$before" ] || fail "the node had a part in it: $before, then $(node_bytes)"
within 10 eval '[ $(status_of mounts_pool_read) -ge $((read_before + 20 * 1048576)) ]' ||
    fail "the bytes read from the pool are not counted: $read_before, then $(status_of mounts_pool_read)"

step "in any order, holes and ends too"
truncate -s 5M "$WORK/plain/holes" "$MNT/holes"
for at in 0 700 2100 4999; do
    head -c 3000 /dev/urandom | tee >(dd of="$MNT/holes" bs=1k seek=$at conv=notrunc status=none) |
        dd of="$WORK/plain/holes" bs=1k seek=$at conv=notrunc status=none
done
within 5 cmp "$WORK/plain/holes" "$MNT/holes" || fail "the test's own writes differ"
umbel flush "$MNT"
evict_cold
before=$(node_bytes)
cmp "$WORK/plain/holes" "$OTHER/holes"
for n in $(seq 60); do
    at=$((RANDOM * 640 % (20 * 1048576))) length=$((RANDOM % 9000 + 1))
    cmp <(dd if="$WORK/plain/a" bs=64k iflag=skip_bytes,count_bytes skip=$at count=$length status=none) \
        <(dd if="$OTHER/a" bs=64k iflag=skip_bytes,count_bytes,direct skip=$((at / 4096 * 4096)) count=$((length + 4096)) status=none |
            tail -c +$((at % 4096 + 1)) | head -c $length) || fail "bytes $at to $((at + length)) differ"
done
cp --sparse=always "$OTHER/holes" "$WORK/copied"
cmp "$WORK/copied" "$WORK/plain/holes"
[ "$(node_bytes)" = "$before" ] || fail "the node had a part in it"

step "what is written elsewhere is seen at once"
exec {held}<"$OTHER/a"
head -c 100 <&$held >/dev/null
for n in $(seq 20); do
    printf 'turn %02d' "$n" | dd of="$MNT/a" conv=notrunc status=none
    [ "$(head -c 7 "$OTHER/a")" = "turn $(printf %02d "$n")" ] || fail "turn $n: $(head -c 7 "$OTHER/a") is read"
    [ $((n % 4)) != 0 ] || { umbel flush "$MNT/a"; umbel evict "$MNT/a"; }
done
exec {held}<&-
cmp "$MNT/a" "$OTHER/a"

step "packs that went meanwhile are looked up anew; the pool that is away is read through a node"
umbel flush "$MNT"
evict_cold
cmp "$MNT/a" "$OTHER/a"
step "a damaged page is an error with file and pack in events, and never data"
head -c 3M /dev/urandom >"$MNT/damaged"
umbel flush "$MNT"
uncached() { evict_cold; ! says 'cached [1-9]' umbel where "$MNT/damaged"; } # a node's copy would mend it
within 20 uncached || fail "a node keeps its copy: $(umbel where "$MNT/damaged")"
pack=$(find "$ROOT/pool/packs" -type f -size +3000k -size -3300k) # not the centre's own
[ -f "$pack" ] || fail "not one pack has the file: $pack"
printf 'XXXX' | dd of="$pack" bs=1 seek=1500000 conv=notrunc status=none
refused 1 'input/output error' cat "$OTHER/damaged"
within 5 grep -q "damage.*inode.*pack" "$MNT/.umbel/events" || fail "events say nothing: $(cat "$MNT/.umbel/events")"
rm "$MNT/damaged"


# --- writing

settings() { echo "$2" >"$MNT/.umbel/settings/$1"; }
written() { sleep 3.3; status_of mounts_pool_written; } # mounts say it when they renew
has_written() { [ "$(status_of mounts_pool_written)" -ge "$1" ]; }
# straight LEAST COMMAND...: so many bytes of it at least pass the nodes by, and of them the node sees at most a tenth
straight() {
    local least=$1 nodes bytes
    shift
    nodes=$(node_bytes) bytes=$(written)
    "$@"
    within 15 has_written $((bytes + least)) || true # it is judged below
    bytes=$(($(status_of mounts_pool_written) - bytes)) nodes=$(($(node_bytes) - nodes))
    [ $bytes -ge "$least" ] || fail "'$*': $bytes bytes went straight to the pool, not $least"
    [ "$ROAD" = mixed ] || [ $nodes -le $((least / 10)) ] || fail "'$*': $nodes bytes passed the node"
}
ROAD=direct
settings direct_size 8M
sleep 3.3 # mounts hear it when they renew
head -c ${size}M /dev/urandom >"$WORK/plain/big"

step "an upload whose size is announced passes no node"
announced() { fallocate -l ${size}M "$2" && dd if="$1" of="$2" bs=1M conv=notrunc,fsync status=none; }
straight $((size * 1048576)) announced "$WORK/plain/big" "$OTHER/announced"
cmp "$WORK/plain/big" "$OTHER/announced"
cmp "$WORK/plain/big" "$MNT/announced"
truncated() { truncate -s ${size}M "$2" && dd if="$1" of="$2" bs=1M conv=notrunc status=none; }
straight $((size * 1048576)) truncated "$WORK/plain/big" "$OTHER/truncated"
cmp "$WORK/plain/big" "$MNT/truncated"

step "one that umbel.direct asks for, on its directory"
mkdir "$OTHER/asked"
setfattr -n umbel.direct -v 1 "$OTHER/asked"
straight $((size * 1048576)) cp "$WORK/plain/big" "$OTHER/asked/big"
cmp "$WORK/plain/big" "$MNT/asked/big"
head -c 5 /dev/urandom >"$WORK/plain/small"
cp "$WORK/plain/small" "$OTHER/asked/small"
cmp "$WORK/plain/small" "$MNT/asked/small"

step "one whose size nobody knows, from direct_size on"
ROAD=mixed
straight $(((size - 10) * 1048576)) cp "$WORK/plain/big" "$OTHER/unannounced"
cmp "$WORK/plain/big" "$MNT/unannounced"
cmp "$WORK/plain/big" "$OTHER/unannounced"
[ "$(stat -c %s "$MNT/unannounced")" = $((size * 1048576)) ] || fail "its size is $(stat -c %s "$MNT/unannounced")"
fsck_clean

step "others see what was acknowledged while it is written"
exec {out}>"$OTHER/growing"
: >"$WORK/plain/growing"
for n in $(seq 24); do
    dd if="$WORK/plain/big" bs=1M skip=$((n % size)) count=1 status=none | tee -a "$WORK/plain/growing" >&$out
    case $((n % 8)) in
    3) [ "$(stat -c %s "$MNT/growing")" = $((n * 1048576)) ] || fail "after $n MiB its size is $(stat -c %s "$MNT/growing")" ;;
    6) cmp "$WORK/plain/growing" "$MNT/growing" ;;
    esac
done
exec {out}>&-
cmp "$WORK/plain/growing" "$MNT/growing"
cmp "$WORK/plain/growing" "$OTHER/growing"

step "append, random writes, truncation and overwriting afterwards"
for dir in "$OTHER" "$MNT" "$OTHER"; do
    echo "a line" | tee -a "$WORK/plain/growing" >>"$dir/growing"
    for n in $(seq 20); do
        at=$((RANDOM * 700)) length=$((RANDOM + 1))
        head -c $length /dev/urandom >"$WORK/bytes"
        dd if="$WORK/bytes" of="$dir/growing" bs=64k oflag=seek_bytes seek=$at conv=notrunc status=none
        dd if="$WORK/bytes" of="$WORK/plain/growing" bs=64k oflag=seek_bytes seek=$at conv=notrunc status=none
    done
    truncate -s $((21000000 + RANDOM)) "$dir/growing"
    truncate -r "$dir/growing" "$WORK/plain/growing"
    cmp "$WORK/plain/growing" "$MNT/growing"
    cmp "$WORK/plain/growing" "$OTHER/growing"
done
cp "$WORK/plain/big" "$OTHER/growing"
cmp "$WORK/plain/big" "$MNT/growing"
cp -p "$WORK/plain/big" "$OTHER/dated"
[ "$(stat -c %y "$MNT/dated")" = "$(stat -c %y "$WORK/plain/big")" ] || fail "cp -p: its time is $(stat -c %y "$MNT/dated")"

step "the centre is killed in the middle of an upload"
(cp "$WORK/plain/big" "$OTHER/centre") & copy=$!
sleep 0.3
kill -KILL "$(pid_of control-1)"
"$UMBEL" up --root "$ROOT" >/dev/null
wait $copy || fail "the copy failed"
cmp "$WORK/plain/big" "$MNT/centre"
cmp "$WORK/plain/big" "$OTHER/centre"

step "the mount is killed in the middle of an upload: what was synced is there, and the rest is garbage that goes"
fallocate -l $((size * 2))M "$OTHER/killed"
(
    exec {out}<>"$OTHER/killed"
    dd if="$WORK/plain/big" bs=1M count=40 status=none >&$out
    sync "$OTHER/killed"
    touch "$WORK/synced"
    while :; do dd if="$WORK/plain/big" bs=1M skip=40 count=8 status=none >&$out || break; done
) 2>/dev/null & upload=$!
within 60 test -e "$WORK/synced" || fail "the sync did not end"
packs() { find "$ROOT/pool/packs" -type f | wc -l; }
synced=$(packs)
within 60 eval '[ $(packs) -gt "$synced" ]' || fail "no pack is begun after the sync"
kill -KILL "$(pid_of "mount-other")"
left=$(packs) # before anyone can collect what is garbage now
wait $upload || true
within 30 eval '! grep -q "problem mount other" "$MNT/.umbel/health"' || fail "the session does not end"
cmp -n $((40 * 1048576)) "$WORK/plain/big" "$MNT/killed"
within 60 eval 'umbel gc >/dev/null 2>&1; [ $(packs) -lt $left ] && [ $(packs) -le "$(status_of packs)" ]' ||
    fail "the pool has $(packs) packs, $left when the mount was killed, the log $(status_of packs)"
cmp -n $((40 * 1048576)) "$WORK/plain/big" "$MNT/killed"

fsck_clean --data
say "ok"
